"""Rows of a batch: which objects they sample, in which groups, and the part of the condition that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..models.conditioning import FlowCondition, select_views


def take_objects(condition: FlowCondition, objects: Tensor) -> FlowCondition:
    """The condition of `objects` (n,) int64 (indices into the batch, repetitions allowed), in that order."""
    objects = objects.to(condition.views.owner.device)
    row, entry = torch.nonzero(objects[:, None] == condition.views.owner[None, :], as_tuple=True)

    def taken(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[objects]

    views = replace(select_views(condition.views, entry), owner=row)
    return FlowCondition(views, len(objects), taken(condition.geometry), taken(condition.has_geometry))


def single_view_rows(condition: FlowCondition) -> FlowCondition:
    """Every pair of an object and a view as an object of its own, seen by that view only."""
    owner = condition.views.owner
    views = replace(
        condition.views,
        owner=torch.arange(len(owner), device=owner.device),
        weight=torch.ones_like(condition.views.weight),
    )
    geometry = None if condition.geometry is None else condition.geometry[owner]
    has_geometry = None if condition.has_geometry is None else condition.has_geometry[owner]
    return FlowCondition(views, len(owner), geometry, has_geometry)


def view_counts(condition: FlowCondition) -> Tensor:
    """(batch,) int64 on the CPU: number of views of each object."""
    return torch.bincount(condition.views.owner, minlength=condition.batch).cpu()


def groups_by_views(condition: FlowCondition, objects: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(number of views, rows (m,) int64) of the rows `objects` (n,) that have it: these can share a schedule."""
    counts = view_counts(condition)[objects.cpu()]
    for count in counts.unique().tolist():
        yield count, torch.nonzero(counts == count).flatten()


def copies_of(objects: Tensor) -> tuple[Tensor, int]:
    """The distinct objects of the rows `objects` (n,) and how often each comes, if all come equally often and
    together; else the rows as they are, and 1."""
    present, counts = objects.unique_consecutive(return_counts=True)
    if bool((counts == counts[0]).all()):
        return present, int(counts[0])
    return objects, 1
