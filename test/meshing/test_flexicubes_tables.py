"""Dual-marching-cubes tables: what any correct table must satisfy, whatever its numbering."""

from itertools import permutations, product

import pytest
import torch

from gena3d_core.meshing.flexicubes_tables import (
    CORNER_OFFSETS,
    EDGES,
    ambiguous_faces,
    case_components,
    dual_tables,
)

CPU = torch.device("cpu")
CASES = range(256)


def crossed(case: int) -> set[int]:
    return {e for e, (a, b) in enumerate(EDGES) if (case >> a & 1) != (case >> b & 1)}


def cube_symmetries() -> list[list[int]]:
    """Where each corner goes under the 48 symmetries of the cube."""
    moves = []
    for axes in permutations(range(3)):
        for flips in product((0, 1), repeat=3):
            moved = [tuple(offset[a] ^ f for a, f in zip(axes, flips, strict=True)) for offset in CORNER_OFFSETS]
            moves.append([x + 2 * y + 4 * z for x, y, z in moved])
    return moves


def test_edges_are_those_of_the_cube():
    assert len({frozenset(edge) for edge in EDGES}) == 12
    for a, b in EDGES:
        assert sum(abs(p - q) for p, q in zip(CORNER_OFFSETS[a], CORNER_OFFSETS[b], strict=True)) == 1


@pytest.mark.parametrize("case", CASES)
def test_components_partition_the_crossed_edges(case):
    components = case_components(case)
    assert sorted(e for c in components for e in c) == sorted(crossed(case))
    assert len(components) <= 4
    assert all(3 <= len(c) <= 7 for c in components)


def test_components_do_not_depend_on_the_pose_of_the_cube():
    edge_of = {frozenset(edge): e for e, edge in enumerate(EDGES)}
    for move in cube_symmetries():
        for case in CASES:
            moved_case = sum(1 << move[q] for q in range(8) if case >> q & 1)
            moved = {
                frozenset(edge_of[frozenset(move[q] for q in EDGES[e])] for e in component)
                for component in case_components(case)
            }
            assert moved == {frozenset(component) for component in case_components(moved_case)}


@pytest.mark.parametrize("case", [c for c in CASES if not ambiguous_faces(c)])
def test_without_ambiguity_inside_and_outside_are_alike(case):
    assert {frozenset(c) for c in case_components(case)} == {frozenset(c) for c in case_components(255 - case)}


def test_well_known_cases():
    assert case_components(0) == case_components(255) == []
    assert case_components(0b00000001) == [(0, 3, 8)]
    # Opposite corners of a face: apart while inside, joined while outside.
    assert len(case_components(0b00001001)) == 2
    assert len(case_components(255 - 0b00001001)) == 1
    # Four corners, no two of which share an edge: four sheets.
    assert len(case_components(0b01101001)) == 4
    # The only pair of sheets that is not numbered by its smallest inside corner.
    assert min(q for e in case_components(231)[0] for q in EDGES[e] if 231 >> q & 1) == 1


def test_tensors_say_the_same():
    tables = dual_tables(CPU)
    assert tables is dual_tables(CPU)
    for case in CASES:
        components = case_components(case)
        assert int(tables.component_count[case]) == len(components)
        assert {e for e in range(12) if tables.edge_component[case, e] >= 0} == crossed(case)
        for i, component in enumerate(components):
            size = int(tables.component_size[case, i])
            assert tuple(tables.component_edges[case, i, :size].tolist()) == component
            assert set(tables.component_edges[case, i].tolist()) == set(component)
            assert all(int(tables.edge_component[case, e]) == i for e in component)


def test_problem_cases():
    steps = dual_tables(CPU).repair_offset
    problem = steps.any(1)
    assert int(problem.sum()) == 36
    assert (steps[problem].abs().sum(1) == 1).all()
    for case in problem.nonzero().flatten().tolist():
        ((axis, side),) = ambiguous_faces(case)
        assert steps[case, axis] == 2 * side - 1
        assert len(case_components(255 - case)) == 2, "inverting a problem case takes its two sheets apart"
