"""Synthetic stage-1 work: networks with random weights, conditions of the right shape, and its counted operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..checkpoints.bundle import ModelBundle
from ..checkpoints.presets import random_bundle
from ..generative.structure import structure_denoiser
from ..models.conditioning import FlowCondition, ViewTokens, view_weights
from ..nn.attention import set_attention_backend
from ..nn.packing import pack


@dataclass(frozen=True)
class StructureOperations:
    """Counted operations (a multiply-add counts two).

    contexts, step, decoder   of all objects together: keys and values once, one guided step, logits from latents
    image, cloud              encoding one crop, encoding one partial cloud
    """

    contexts: int
    step: int
    decoder: int
    image: int
    cloud: int

    def sampling(self, steps: int) -> int:
        """Of stage 1 from conditions to logits."""
        return self.contexts + steps * self.step + self.decoder


def latent_shape(bundle: ModelBundle) -> tuple[int, ...]:
    """(C, R, R, R) of the latent of one object."""
    config = bundle.modules["sparse_structure_flow"].config
    return (config.in_channels, *(config.resolution,) * 3)


def crops(bundle: ModelBundle, device: str) -> Tensor:
    """(1, 5, S, S): colour and two masks of one view, random."""
    return torch.rand(1, 5, bundle.image_size, bundle.image_size, device=device)


def cloud(bundle: ModelBundle, device: str) -> Tensor:
    """(1, 1, V, V, V) occupancy of one partial cloud, empty."""
    decoder = bundle.modules["sparse_structure_decoder"].config
    return torch.zeros(1, 1, *(latent_shape(bundle)[1] * decoder.scale,) * 3, device=device)


def token_shape(size: str) -> tuple[int, int]:
    """(L, C) of the tokens that the image encoder of `size` makes of one view."""
    bundle = random_bundle(size, device="meta")
    with torch.no_grad():
        return tuple(bundle.modules["image_encoder"].encode(crops(bundle, "meta")).shape[1:])


def synthetic_condition(
    tokens: tuple[int, int], latent: Sequence[int], views: int, objects: int, device: str
) -> FlowCondition:
    """Random tokens and clouds of `objects` with `views` each, every view with a weight of its own."""
    pairs = views * objects
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(objects).repeat_interleave(views)
    weight = view_weights(0.2 + 0.8 * torch.rand(pairs, generator=generator), owner, objects)
    if device == "meta":
        return _meta_condition(tokens, latent, owner, weight)
    seen = ViewTokens(torch.randn(pairs, *tokens, generator=generator).to(device), owner.to(device), weight.to(device))
    geometry = torch.randn(objects, *latent, generator=generator).to(device)
    return FlowCondition(seen, objects, geometry, None)


def _meta_condition(tokens: tuple[int, int], latent: Sequence[int], owner: Tensor, weight: Tensor) -> FlowCondition:
    # Without numbers nobody can tell who serves whom: that is settled here, with numbers.
    packing = pack(owner, int(owner.max()) + 1)
    views = ViewTokens(torch.empty(len(owner), *tokens, device="meta"), owner, weight.to("meta"))
    condition = FlowCondition(views, packing.rows, torch.empty(packing.rows, *latent, device="meta"), None)
    condition.__dict__["seen"] = (views, None if packing.most == 1 else packing)
    return condition


def count(run: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions that `run` does; attention counts if its backend is
    'reference', which writes its two products out."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def structure_operations(size: str, views: int, objects: int) -> StructureOperations:
    """Counted on networks without numbers, so that full size costs nothing."""
    bundle = random_bundle(size, device="meta")
    for module in bundle.modules.values():
        set_attention_backend(module, "reference")
    flow, decoder = bundle.modules["sparse_structure_flow"], bundle.modules["sparse_structure_decoder"]
    latent = latent_shape(bundle)
    condition = synthetic_condition(token_shape(size), latent, views, objects, "meta")
    x = torch.empty(objects, *latent, device="meta")
    with torch.no_grad():
        denoiser = structure_denoiser(flow, condition, 1, "view_wise")
    return StructureOperations(
        count(lambda: flow.contexts(condition)),
        count(lambda: denoiser.guided(x, 0.5, 0)),
        count(lambda: decoder(x)),
        count(lambda: bundle.modules["image_encoder"].encode(crops(bundle, "meta"))),
        count(lambda: bundle.modules["sparse_structure_encoder"](cloud(bundle, "meta"))),
    )
