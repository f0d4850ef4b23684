"""The segmenter `auto`: what it takes of what is here, what it says, and what it does with words."""

import logging

import pytest

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.segmentation import choice, make_segmenter, prompt_kinds
from gena3d_core.segmentation.grounded import Grounded
from gena3d_core.segmentation.promptable import Promptable
from gena3d_core.segmentation.tabletop import Tabletop
from gena3d_core.types import BoxPrompt, PointPrompt, Segmentation, TextPrompt


class Noted:
    """Stands for a segmenter and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, views, prompts=()):
        self.asked.append(tuple(prompts))
        return Segmentation(())


@pytest.fixture
def machine(monkeypatch, caplog):
    """`machine(weights, packages, broken)`: what auto makes there, and what it logs."""

    def make(weights=(), packages=("transformers", "segment_anything"), broken=()):
        def promptable(name, device):
            if name in broken:
                raise DataFormatError(f"{name} is damaged")
            return Promptable(object(), name=name)

        monkeypatch.setattr(choice, "present_folder", lambda model: "here" if model.name in weights else None)
        monkeypatch.setattr(choice, "find_spec", lambda name: name if name in packages else None)
        monkeypatch.setattr(choice, "make_promptable", promptable)
        monkeypatch.setattr(choice, "load_detector", lambda checkpoint, device: object())
        logger = logging.getLogger("gena3d")
        logger.addHandler(caplog.handler)
        before = logger.level
        logger.setLevel(logging.INFO)
        try:
            caplog.clear()
            found = make_segmenter("auto")
        finally:
            logger.removeHandler(caplog.handler)
            logger.setLevel(before)
        return found, "; ".join(dict.fromkeys(record.getMessage() for record in caplog.records))

    return make


def test_without_weights_it_is_the_tabletop_and_says_so(machine):
    found, log = machine()
    assert isinstance(found.plain, Tabletop)
    assert log == "segmentation: auto chose 'tabletop', takes no words"
    assert prompt_kinds(found) == {BoxPrompt, PointPrompt}
    with pytest.raises(InputError, match=r"Florence-2 .* gena3d checkpoint info florence-2"):
        found([], [TextPrompt("mug")])


def test_the_best_network_whose_weights_and_package_are_here(machine):
    found, log = machine({"sam3", "sam2", "sam-vit-b"})
    assert found.plain.name == "sam3"
    assert "runs on sam3 (SAM License)" in log
    found, _ = machine({"sam2", "sam-vit-b"}, packages=("segment_anything",))
    assert found.plain.name == "sam"
    found, log = machine({"sam3", "sam-vit-l"}, broken={"sam3"})
    assert found.plain.name == "sam"
    assert "leaves out 'sam3': sam3 is damaged" in log
    assert "runs on sam-vit-l (Apache-2.0)" in log


def test_words_need_the_detector_and_a_mask_network(machine):
    found, log = machine({"florence-2"})
    assert found.with_words is None
    found, log = machine({"florence-2", "sam2"})
    assert isinstance(found.with_words, Grounded)
    assert found.with_words.segmenter is found.plain
    assert "words through Florence-2" in log
    assert prompt_kinds(found) == {BoxPrompt, PointPrompt, TextPrompt}


def test_words_go_to_the_detector_and_nothing_else_does():
    plain, words = Noted(), Noted()
    auto = choice.AutoSegmenter(plain, words)
    box, text = BoxPrompt("a", (0.0, 0.0, 1.0, 1.0)), TextPrompt("mug")
    auto([])
    auto([], [box])
    auto([], [box, text])
    assert plain.asked == [(), (box,)]
    assert words.asked == [(box, text)]
