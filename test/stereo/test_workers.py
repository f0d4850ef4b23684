"""Views side by side."""

import threading

import pytest
import torch

from gena3d_core.stereo.plane_sweep.workers import map_views

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_single_threaded_workers(two_threads):
    together = threading.Barrier(2, timeout=30)

    def work(index: int) -> tuple[int, int, bool]:
        if index < 2:
            together.wait()
        return index, torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert map_views(work, range(5), CPU) == [(i, 1, True) for i in range(5)]
    assert torch.get_num_threads() == 2


def test_errors_reach_the_caller_and_workers_live_on(two_threads):
    def work(index: int) -> int:
        if index == 3:
            raise ValueError("view 3")
        return index

    with pytest.raises(ValueError, match="view 3"):
        map_views(work, range(5), CPU)
    assert map_views(work, range(3), CPU) == [0, 1, 2]


def test_one_thread_needs_no_workers():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = map_views(lambda _: threading.current_thread().name, range(2), CPU)
    finally:
        torch.set_num_threads(before)
    assert names == [threading.current_thread().name] * 2
