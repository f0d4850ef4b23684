"""The worker thread: newest wins, cancel at any time, nothing told twice."""

import threading

import pytest

from gena3d_core.errors import CancelledError, StageError
from gena3d_core.types import Reconstruction, Scene, check_cancelled
from gena3d_ros.reconstruction_worker import Job, LatestOnlyWorker

RESULT = Reconstruction(Scene(objects=()), (), ())


class Task:
    """A job whose work waits until told, and that records what it was told."""

    def __init__(self, error=None, stubborn=False, **options):
        self.error, self.stubborn = error, stubborn
        self.started, self.go = threading.Event(), threading.Event()
        self.outcomes, self.ended, self.stages = [], threading.Event(), []
        self.job = Job(self.work, lambda stage, _: self.stages.append(stage), self.finished, **options)

    def work(self, progress, cancelled):
        self.started.set()
        progress("stereo", 0.0)
        while not self.go.wait(0.005):
            if not self.stubborn:
                check_cancelled(cancelled)
        progress("layout", 0.9)
        if self.error:
            raise self.error
        return RESULT

    def finished(self, outcome):
        self.outcomes.append(outcome)
        self.ended.set()

    def outcome(self):
        assert self.ended.wait(10)
        assert len(self.outcomes) == 1
        return self.outcomes[0]


@pytest.fixture
def worker():
    worker = LatestOnlyWorker()
    yield worker
    worker.close(10)


def test_a_job_runs_and_tells_progress_and_result(worker):
    task = Task()
    worker.submit(task.job)
    assert task.started.wait(10)
    assert worker.busy
    task.go.set()
    assert task.outcome().reconstruction is RESULT
    assert task.stages == ["stereo", "layout"]


@pytest.mark.parametrize("error", [StageError("stereo", "no texture"), RuntimeError("surprise")])
def test_an_error_is_an_outcome_and_the_next_job_runs(worker, error):
    failing, good = Task(error), Task()
    for task in (failing, good):
        task.go.set()
        worker.submit(task.job)
        task.ended.wait(10)
    assert failing.outcome().error is error
    assert good.outcome().reconstruction is RESULT


def test_a_waiting_job_is_displaced_by_a_newer_one(worker):
    running, waiting, newest = Task(), Task(), Task()
    worker.submit(running.job)
    assert running.started.wait(10)
    worker.submit(waiting.job)
    worker.submit(newest.job)
    assert isinstance(waiting.outcome().error, CancelledError)
    running.go.set()
    newest.go.set()
    assert running.outcome().reconstruction is RESULT, "a job that is not urgent lets the running one finish"
    assert newest.outcome().reconstruction is RESULT
    assert not waiting.started.is_set()


def test_an_urgent_job_stops_the_running_one_and_goes_before_the_waiting(worker):
    running, waiting, urgent = Task(), Task(), Task(urgent=True)
    worker.submit(running.job)
    assert running.started.wait(10)
    worker.submit(waiting.job)
    worker.submit(urgent.job)
    assert "newer request" in str(running.outcome().error)
    assert "newer request" in str(waiting.outcome().error)
    urgent.go.set()
    assert urgent.outcome().reconstruction is RESULT


def test_a_job_that_is_not_urgent_waits_behind_an_urgent_one(worker):
    first, urgent, later = Task(stubborn=True), Task(urgent=True), Task()
    worker.submit(first.job)
    assert first.started.wait(10)
    worker.submit(urgent.job)
    worker.submit(later.job)
    assert not urgent.started.is_set()
    for task in (first, urgent):
        task.go.set()
    assert urgent.outcome().reconstruction is RESULT
    later.go.set()
    assert later.outcome().reconstruction is RESULT


def test_an_abandoned_job_ends_at_once_though_its_work_goes_on(worker):
    stubborn, next_task = Task(stubborn=True), Task()
    worker.submit(stubborn.job)
    assert stubborn.started.wait(10)
    assert stubborn.job.abandon("not wanted any more")
    assert "not wanted" in str(stubborn.outcome().error)
    next_task.go.set()
    worker.submit(next_task.job)
    assert not next_task.started.is_set(), "two pipelines must not run at once"
    stubborn.go.set()
    assert next_task.outcome().reconstruction is RESULT
    assert len(stubborn.outcomes) == 1
    assert stubborn.stages == ["stereo"], "no progress is told after the end"
    assert not stubborn.job.abandon("again")


def test_abandon_all_ends_running_and_waiting_and_the_worker_lives(worker):
    running, waiting, after = Task(stubborn=True), Task(), Task()
    worker.submit(running.job)
    assert running.started.wait(10)
    worker.submit(waiting.job)
    worker.abandon_all("deactivated")
    for task in (running, waiting):
        assert "deactivated" in str(task.outcome().error)
    running.go.set()
    after.go.set()
    worker.submit(after.job)
    assert after.outcome().reconstruction is RESULT


def test_delayed_jobs_are_collected_and_only_the_newest_runs(worker):
    tasks = [Task(delay_s=0.3) for _ in range(5)]
    for task in tasks:
        task.go.set()
        worker.submit(task.job)
    assert tasks[-1].outcome().reconstruction is RESULT
    assert [task.started.is_set() for task in tasks] == [False] * 4 + [True]


def test_a_steady_stream_of_jobs_does_not_put_the_work_off_for_ever(worker):
    stop, started = threading.Event(), threading.Event()

    def work(progress, cancelled):
        started.set()
        return RESULT

    def stream():
        while not stop.wait(0.01):
            worker.submit(Job(work, lambda *_: None, lambda _: None, delay_s=0.2))

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        assert started.wait(10)
    finally:
        stop.set()
        thread.join()


def test_a_receiver_that_raises_does_not_end_the_worker(worker):
    def finished(outcome):
        raise RuntimeError("receiver is broken")

    worker.submit(Job(lambda *_: RESULT, lambda *_: None, finished))
    task = Task()
    task.go.set()
    worker.submit(task.job)
    assert task.outcome().reconstruction is RESULT


def test_close_ends_everything_and_later_jobs_end_at_once():
    worker, running, late = LatestOnlyWorker(), Task(), Task()
    worker.submit(running.job)
    assert running.started.wait(10)
    assert worker.close(10)
    assert "shuts down" in str(running.outcome().error)
    worker.submit(late.job)
    assert "shuts down" in str(late.outcome().error)


def test_close_says_when_work_does_not_end():
    worker, stubborn = LatestOnlyWorker(), Task(stubborn=True)
    worker.submit(stubborn.job)
    assert stubborn.started.wait(10)
    assert not worker.close(0.05)
    assert stubborn.ended.is_set()
    stubborn.go.set()
    assert worker.close(10)
