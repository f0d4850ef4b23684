"""Cases of stage 1: the sparse-structure flow model and VAE."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ...models.conditioning import single_views
from ...models.sparse_structure_flow import SparseStructureFlow
from ...models.sparse_structure_vae import Posterior, occupied_voxels
from ..golden import CaseResults, Comparison, Difference, GoldenCase, Tolerance
from ..published import load_published
from .recording import recorded


def flow(case: GoldenCase) -> CaseResults:
    """out.v = model(x, t, cond)."""
    model = cast(
        SparseStructureFlow, load_published("SparseStructureFlowModel", case.constructor, case.weights, case.name)
    )
    points = {f"block{i}": block for i, block in enumerate(model.blocks)}
    with torch.no_grad():
        contexts = model.contexts(single_views(case.inputs["cond"]))
        with recorded({"t_emb": model.t_embedder, "input_layer": model.input_layer, **points}) as mid:
            out = model(case.inputs["x"], case.inputs["t"], contexts)
    return CaseResults({"out.v": out, **mid})


def vae(case: GoldenCase) -> CaseResults:
    """Posterior of in.ss, logits of in.z and of the mean, occupied voxels of the former logits."""
    encoder, decoder = (
        load_published(name, case.constructor[name], _part(case, part), f"{case.name} ({part})")
        for name, part in (("SparseStructureEncoder", "encoder"), ("SparseStructureDecoder", "decoder"))
    )
    with torch.no_grad():
        posterior = cast(Posterior, encoder(case.inputs["ss"]))
        logits = decoder(case.inputs["z"])
        found = {
            "out.mean": posterior.mean,
            "out.logvar": posterior.logvar,
            "out.z_sampled": posterior.sample(case.inputs["posterior_eps"]),
            "out.logits": logits,
            "out.logits_of_mean": decoder(posterior.mean),
            "out.coords": occupied_voxels(logits),
        }
    return CaseResults(found, {"out.coords": occupied_comparison(case.expected["out.logits"])})


def _part(case: GoldenCase, part: str) -> dict[str, Tensor]:
    """Weights of one of the two networks, without its prefix."""
    return {k.removeprefix(f"{part}."): v for k, v in case.weights.items() if k.startswith(f"{part}.")}


def occupied_comparison(logits: Tensor) -> Comparison:
    """Compares lists of occupied voxels: equal rows in equal order, but for voxels whose reference logit is nearer to
    0 than the absolute tolerance, of which either side may list any. The difference shown is the largest |logit| of
    a voxel that only one side lists.
    """
    margin = logits.squeeze(1).abs()

    def compare(ours: Tensor, theirs: Tensor, tolerance: Tolerance) -> Difference:
        size = torch.tensor(margin.shape)
        if ours.ndim != 2 or ours.shape[1] != 4 or bool(((ours < 0) | (ours >= size)).any()):
            return Difference(float("inf"), float("inf"), False, f"not (N, 4) voxels of a {tuple(size.tolist())} grid")
        sure_ours, sure_theirs = (rows[margin[rows.long().unbind(1)] >= tolerance.atol] for rows in (ours, theirs))
        listed = torch.zeros_like(margin, dtype=torch.int64)
        for rows in (ours, theirs):
            listed[rows.long().unbind(1)] += 1
        single = margin[listed == 1]
        largest = float(single.max()) if len(single) else 0.0
        remark = f"{len(single)} voxels differ, all with |logit| <= {largest:.1e}" if len(single) else ""
        return Difference(largest, 0.0, torch.equal(sure_ours.int(), sure_theirs.int()), remark)

    return compare
