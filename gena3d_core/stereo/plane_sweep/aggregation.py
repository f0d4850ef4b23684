"""Semi-global aggregation of a cost volume along eight paths, and the winning hypothesis with sub-step precision.

Source: H. Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", TPAMI 2008, eq. 13-14.
"""

from __future__ import annotations

import torch

EDGE_CONTRAST = 8.0 / 255.0
"""Grey difference at which the penalty of a depth edge has halved."""


def semi_global(volume: torch.Tensor, gray: torch.Tensor, small: float, large: float) -> torch.Tensor:
    """(D, h, w) cost `volume` aggregated along 8 paths, divided by 8; `gray` (h, w) in [0, 1] guides depth edges.

    Python loops run over scan steps only; all hypotheses, the pixels of a line and the paths advance together.
    """
    rows = volume.transpose(0, 1).contiguous()
    vertical = _sweep(rows, gray, (-1, 0, 1), small, large).transpose(0, 1)
    columns = volume.permute(2, 0, 1).contiguous()
    horizontal = _sweep(columns, gray.t().contiguous(), (0,), small, large).permute(1, 2, 0)
    return (vertical + horizontal).mul_(1.0 / 8.0)


def _sweep(
    lines: torch.Tensor, gray: torch.Tensor, shifts: tuple[int, ...], small: float, large: float
) -> torch.Tensor:
    """Sum over the paths that cross `lines` (n, D, m) forwards and backwards, displaced by `shifts` a line."""
    count, depth, length = lines.shape
    paths = len(shifts)
    penalty = torch.stack([_edge_penalty(gray, shift, direction, large) for direction in (1, -1) for shift in shifts])
    total = torch.zeros_like(lines)
    previous = torch.zeros((2 * paths, depth, length), device=lines.device)
    for step in range(count):
        back = count - 1 - step
        previous = torch.stack([_shift(previous[i], shift) for i, shift in enumerate(shifts + shifts)])
        least = previous.amin(dim=1, keepdim=True)
        best = torch.minimum(previous, least + penalty[:, step, None])
        near = previous.add_(small)
        torch.minimum(best[:, 1:], near[:, :-1], out=best[:, 1:])
        torch.minimum(best[:, :-1], near[:, 1:], out=best[:, :-1])
        best -= least
        best[:paths] += lines[step]
        best[paths:] += lines[back]
        total[step] += best[:paths].sum(dim=0)
        total[back] += best[paths:].sum(dim=0)
        previous = best
    return total


def _shift(values: torch.Tensor, shift: int) -> torch.Tensor:
    """(D, m) displaced by `shift` along m; zeros enter, which start a path anew."""
    if shift == 0:
        return values
    shifted = torch.zeros_like(values)
    if shift > 0:
        shifted[:, shift:] = values[:, :-shift]
    else:
        shifted[:, :shift] = values[:, -shift:]
    return shifted


def _edge_penalty(gray: torch.Tensor, shift: int, direction: int, large: float) -> torch.Tensor:
    """(n, m) penalty of a depth edge on the path's way into each pixel, in the order in which lines are visited."""
    visited = gray if direction > 0 else gray.flip(0)
    origin = torch.zeros_like(visited)
    origin[1:] = _shift(visited[:-1], shift)
    return large / (1.0 + (visited - origin).abs() / EDGE_CONTRAST)


def winner(aggregated: torch.Tensor, volume: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Best hypothesis of the (D, h, w) `aggregated` costs; `volume` holds them before aggregation.

    Returns its fractional index (h, w), its integer index (h, w) and its distinctness (h, w) in [0, 1): by how much
    the best cost outside its neighbourhood is worse, relatively.
    """
    depth = len(aggregated)
    best, index = aggregated.min(dim=0)
    if depth < 3:
        return index.float(), index, torch.zeros_like(best)
    others = aggregated.clone()
    for k in range(-2, 3):
        others.scatter_(0, (index + k).clamp(0, depth - 1)[None], float("inf"))
    second = others.amin(dim=0)
    distinctness = torch.where(torch.isfinite(second), 1.0 - best / second.clamp(min=1e-6), 0.0)
    return _parabola_vertex(volume, index), index, distinctness.clamp_(0.0, 1.0)


def _parabola_vertex(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(h, w) fractional index of the least cost around `index`.

    Aggregated costs would pull it towards whole steps (the penalties flatten them), so the parabola goes through
    the plain costs, averaged over a cross of five pixels against noise.
    """
    inner = index.clamp(1, len(volume) - 2)[None]
    before, at, after = (_mean_of_cross(volume, inner + k) for k in (-1, 0, 1))
    curvature = before - 2.0 * at + after
    offset = torch.where(curvature > 1e-9, 0.5 * (before - after) / curvature.clamp(min=1e-9), 0.0).clamp_(-0.5, 0.5)
    return torch.where(index == inner[0], index + offset, index.float())


def _mean_of_cross(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(h, w) mean over each pixel and its four neighbours of `volume` (D, h, w) at that pixel's `index` (1, h, w)."""
    height, width = index.shape[1:]
    rows = torch.arange(height, device=index.device)[:, None]
    cols = torch.arange(width, device=index.device)[None]
    total = volume.gather(0, index)[0]
    for row, col in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        total += volume[index[0], (rows + row).clamp(0, height - 1), (cols + col).clamp(0, width - 1)]
    return total.mul_(1.0 / 5.0)
