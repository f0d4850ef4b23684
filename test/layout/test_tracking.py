from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gena3d_core.geometry.transforms import rigid
from gena3d_core.layout.tracking import assign_ids, merged, remember, with_forced_ids, with_ids_of
from gena3d_core.types import Mesh, ObjectObservation, ReconstructedObject, Reconstruction, Scene

POINT = Mesh(np.zeros((1, 3), np.float32), np.zeros((0, 3), np.int32))


def item(id, center, size=(0.1, 0.1, 0.1), label=""):
    T = rigid(t=np.array(center, dtype=np.float64))
    return ReconstructedObject(id, label, 1.0, POINT, T_world_object=T, size_m=np.array(size))


def scene(*objects, frame_id="map"):
    return Scene(objects=tuple(objects), frame_id=frame_id)


def ids(scene):
    return [o.id for o in scene.objects]


def test_without_a_previous_scene_ids_count_up():
    assert ids(assign_ids(None, scene(item(8, (0, 0, 0)), item(8, (1, 0, 0))))) == [1, 2]
    assert ids(assign_ids(None, scene(item(8, (0, 0, 0))), first_new_id=5)) == [5]


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_jittered_and_shuffled_objects_keep_their_ids(order, kept, seed):
    rng = np.random.default_rng(seed)
    before = scene(*(item(10 + i, (0.2 * (i % 4), 0.2 * (i // 4), 0.05)) for i in range(12)))
    jitter = rng.uniform(-0.02, 0.02, (12, 3))
    sizes = 0.1 * rng.uniform(0.8, 1.25, (12, 3))
    seen = [before.objects[i] for i in order[:kept]]
    moved = [
        replace(o, id=-1, T_world_object=rigid(t=o.T_world_object[:3, 3] + j), size_m=s)
        for o, j, s in zip(seen, jitter, sizes, strict=False)
    ]
    assert ids(assign_ids(before, scene(*moved))) == [o.id for o in seen]


@given(
    st.lists(st.tuples(*[st.floats(-1, 1)] * 3), max_size=8), st.lists(st.tuples(*[st.floats(-1, 1)] * 3), max_size=8)
)
def test_ids_are_always_unique_and_nothing_else_changes(before, after):
    previous = scene(*(item(3 * i, c) for i, c in enumerate(before)))
    current = scene(*(item(0, c) for c in after))
    result = assign_ids(previous, current)
    assert len(set(ids(result))) == len(after)
    for new, old in zip(result.objects, current.objects, strict=True):
        assert all(getattr(new, name) is getattr(old, name) for name in ("mesh", "T_world_object", "size_m", "label"))


def test_an_object_that_left_gives_its_id_to_nobody():
    before = scene(item(1, (0, 0, 0)), item(2, (0.5, 0, 0)))
    after = scene(item(0, (0, 0, 0)), item(0, (0, 0.5, 0)))
    assert ids(assign_ids(before, after)) == [1, 3]
    assert ids(assign_ids(before, after, first_new_id=9)) == [1, 9]


def test_neighbours_are_told_apart_by_the_best_total_pairing():
    before = scene(item(1, (0, 0, 0)), item(2, (0.12, 0, 0)))
    pushed = scene(item(0, (0.11, 0, 0)), item(0, (0.23, 0, 0)))
    # Both could be object 2 on their own; together only the one nearer to its place can.
    assert ids(assign_ids(before, pushed))[0] == 2
    assert ids(assign_ids(before, scene(item(0, (0.05, 0, 0)), item(0, (0.15, 0, 0))))) == [1, 2]


def test_size_decides_where_the_place_does_not():
    before = scene(item(1, (0, 0, 0), (0.4, 0.4, 0.02)), item(2, (0, 0, 0.03), (0.06, 0.06, 0.06)))
    after = scene(item(0, (0, 0, 0.03), (0.06, 0.06, 0.06)), item(0, (0, 0, 0), (0.4, 0.4, 0.02)))
    assert ids(assign_ids(before, after)) == [2, 1]


def test_labels_decide_between_two_in_one_place():
    before = scene(item(1, (0, 0, 0), label="mug"), item(2, (0, 0, 0), label="lid"))
    after = scene(item(0, (0, 0, 0), label="lid"), item(0, (0, 0, 0), label="mug"))
    assert ids(assign_ids(before, after)) == [2, 1]


def test_another_frame_makes_other_objects_with_other_ids():
    before = scene(item(1, (0, 0, 0)))
    assert ids(assign_ids(before, scene(item(0, (0, 0, 0)), frame_id="odom"))) == [2]


def test_an_object_missed_once_gets_its_id_back():
    first = assign_ids(None, scene(item(0, (0, 0, 0)), item(0, (0.5, 0, 0))))
    memory = remember(None, first)
    second = assign_ids(memory, scene(item(0, (0.5, 0, 0))))
    assert ids(second) == [2]
    memory = remember(memory, second)
    assert ids(memory) == [2, 1]
    assert [len(o.mesh.vertices) for o in memory.objects] == [1, 0], "meshes of what is gone are not kept"
    assert ids(assign_ids(memory, scene(item(0, (0, 0, 0)), item(0, (1, 0, 0))))) == [1, 3]
    assert ids(remember(memory, scene(), limit=1)) == [2]


@pytest.mark.parametrize("count", [0, 2])
def test_observations_follow_the_ids_of_the_scene(count):
    def observation(id):
        empty = np.zeros((0, 3), np.float32)
        return ObjectObservation(id, "", 1.0, (), (), (), empty, empty.astype(np.uint8), np.zeros(0, np.int32))

    plain = scene(*(item(i, (i, 0, 0)) for i in range(count)))
    reconstruction = Reconstruction(plain, (), tuple(observation(i) for i in range(count)))
    relabelled = with_ids_of(reconstruction, assign_ids(None, plain, first_new_id=40))
    assert ids(relabelled.scene) == [o.id for o in relabelled.observations] == list(range(40, 40 + count))


def test_ids_that_are_forced_are_taken_from_whoever_had_them():
    given = scene(item(4, (0, 0, 0)), item(7, (1, 0, 0)), item(9, (2, 0, 0)))
    assert ids(with_forced_ids(given, {2: 4}, first_new_id=20)) == [20, 7, 4]
    assert ids(with_forced_ids(given, {}, first_new_id=1)) == [4, 7, 9]
    assert ids(with_forced_ids(given, {0: 4, 1: 9, 2: 7}, first_new_id=1)) == [4, 9, 7]


def test_what_a_scene_lacks_is_taken_from_the_one_before():
    before = scene(item(1, (0, 0, 0)), item(2, (1, 0, 0)))
    after = scene(item(5, (3, 0, 0)), item(2, (1, 0, 0), label="new"))
    whole = merged(before, after)
    assert [(o.id, o.label) for o in whole.objects] == [(1, ""), (2, "new"), (5, "")]
    assert whole.objects[0] is before.objects[0]
    assert merged(None, after) is after
    assert merged(scene(item(1, (0, 0, 0)), frame_id="other"), after) is after
