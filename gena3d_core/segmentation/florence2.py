"""Boxes from words by Florence-2, through transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import DataFormatError
from ..types import UInt8Array
from .mask_models import checked_image, resized
from .transformers_import import import_transformers, load_network

CLASS = "Florence2ForConditionalGeneration"
NEEDED_FOR = "the segmenter 'grounded'"
IMAGE_SIZE = 768
BINS = 1000
"""Florence-2 writes coordinates as one of so many equal parts of the image's width or height."""
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
LOCATE = "Locate {text} in the image."
LIST_OBJECTS = "Locate the objects with category name in the image."

# Some tokenizers put spaces between the places.
_PART = re.compile(r"(?P<label>[^<>]*)(?P<poly><poly>)?(?P<places>(?:\s*<loc_\d+>)+)")
_PLACE = re.compile(r"<loc_(\d+)>")


@dataclass(frozen=True)
class Detection:
    """A box in an image: pixels (x_min, y_min, x_max, y_max), and what it was said to hold."""

    box_xyxy: tuple[float, float, float, float]
    label: str


class TextDetector(Protocol):
    """Finds what words name."""

    def detect(self, images: Sequence[UInt8Array], texts: Sequence[str]) -> list[list[Detection]]:
        """Detections in each image, labelled with the text that they answer; without texts, all objects."""
        ...


class Florence2:
    """`TextDetector`; images are stretched to a square, each text is asked for by itself."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        device: str = "cpu",
        image_size: int = IMAGE_SIZE,
        rows_per_pass: int = 4,
        max_new_tokens: int = 256,
        beams: int = 3,
    ) -> None:
        """network, tokenizer: of transformers, for one another. rows_per_pass: pairs of image and text at a time."""
        self.device = torch.device(device)
        self.network: Any = network.to(self.device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_size, self.rows_per_pass = image_size, rows_per_pass
        self.max_new_tokens, self.beams = max_new_tokens, beams
        self._mean = torch.tensor(MEAN, device=self.device)[:, None, None]
        self._deviation = torch.tensor(DEVIATION, device=self.device)[:, None, None]
        self._image_tokens: int | None = None

    @torch.inference_mode()
    def detect(self, images: Sequence[UInt8Array], texts: Sequence[str]) -> list[list[Detection]]:
        """See `TextDetector.detect`."""
        pictures = [self._pixels(checked_image(image)) for image in images]
        questions = [LOCATE.format(text=text.strip()) for text in texts] or [LIST_OBJECTS]
        rows = [(view, number) for view in range(len(images)) for number in range(len(questions))]
        found: list[list[Detection]] = [[] for _ in images]
        for start in range(0, len(rows), self.rows_per_pass):
            part = rows[start : start + self.rows_per_pass]
            answers = self._answers([pictures[view] for view, _ in part], [questions[number] for _, number in part])
            for (view, number), answer in zip(part, answers, strict=True):
                height, width = images[view].shape[:2]
                label = texts[number].strip() if texts else None
                found[view] += parse_boxes(answer, width, height, label)
        return found

    def _pixels(self, image: UInt8Array) -> Tensor:
        pixels = resized(image, self.image_size, self.image_size).to(self.device) / 255.0
        return (pixels - self._mean) / self._deviation

    def _answers(self, pictures: Sequence[Tensor], questions: Sequence[str]) -> list[str]:
        batch = torch.stack(list(pictures))
        if self._image_tokens is None:
            self._image_tokens = int(self.network.get_image_features(batch[:1]).pooler_output.shape[1])
        ids, attended = self._token_rows(questions, self._image_tokens)
        generated = self.network.generate(
            input_ids=ids,
            attention_mask=attended,
            pixel_values=batch,
            max_new_tokens=self.max_new_tokens,
            num_beams=self.beams,
            do_sample=False,
        )
        return list(self.tokenizer.batch_decode(generated, skip_special_tokens=False))

    def _token_rows(self, questions: Sequence[str], image_tokens: int) -> tuple[Tensor, Tensor]:
        """Rows of token ids: places of the image, start, question, end; padded at the end."""
        image_id, pad_id = self.network.config.image_token_id, self.tokenizer.pad_token_id
        rows = [
            [image_id] * image_tokens
            + [self.tokenizer.bos_token_id]
            + list(self.tokenizer(question, add_special_tokens=False)["input_ids"])
            + [self.tokenizer.eos_token_id]
            for question in questions
        ]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), pad_id, dtype=torch.long, device=self.device)
        attended = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row, device=self.device)
            attended[number, : len(row)] = 1
        return ids, attended


def parse_boxes(answer: str, width: int, height: int, label: str | None = None) -> list[Detection]:
    """Boxes that Florence-2 wrote into `answer`, in pixels of an image of `width` x `height`; outlines as their boxes.

    label: of every box; None: the words before it. Boxes without area are left out.
    """
    found, words = [], "object"
    for part in _PART.finditer(answer):
        words = part["label"].strip() or words
        places = [(int(number) + 0.5) / BINS for number in _PLACE.findall(part["places"])]
        size = len(places) // 2 * 2 if part["poly"] else 4
        for start in range(0, len(places) - size + 1, max(size, 1)):
            x, y = places[start : start + size : 2], places[start + 1 : start + size : 2]
            if x and y and max(x) > min(x) and max(y) > min(y):
                box = (min(x) * width, min(y) * height, max(x) * width, max(y) * height)
                found.append(Detection(box, label or words))
    return found


def load_florence2(folder: Path, device: str = "cpu", rows_per_pass: int = 4) -> Florence2:
    """Florence-2 with the weights and the tokenizer in `folder`.

    Raises `MissingDependencyError` without transformers, `DataFormatError` for a folder that is not Florence-2's.
    """
    from ..checkpoints.description import read_json

    transformers = import_transformers(NEEDED_FOR, [CLASS, "AutoTokenizer"])
    network = load_network(CLASS, folder, NEEDED_FOR, ("florence2",))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise DataFormatError(f"{folder}: the tokenizer of Florence-2 cannot be read: {error}") from error
    places = [tokenizer.convert_tokens_to_ids(f"<loc_{number}>") for number in (0, BINS - 1)]
    if None in places or tokenizer.unk_token_id in places:
        raise DataFormatError(f"{folder}: the tokenizer has no tokens <loc_0> to <loc_{BINS - 1}>: not Florence-2's")
    settings = folder / "preprocessor_config.json"
    size = read_json(settings).get("size", {}).get("height", IMAGE_SIZE) if settings.is_file() else IMAGE_SIZE
    return Florence2(network, tokenizer, device, int(size), rows_per_pass)
