"""A tiny published network, a numerical case about it, and the command line in this process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from gena3d_core.checkpoints.published import build_published
from gena3d_core.cli import main
from gena3d_core.models.conditioning import single_views

TINY_FLOW = {
    "resolution": 4,
    "in_channels": 2,
    "out_channels": 2,
    "model_channels": 24,
    "cond_channels": 10,
    "num_blocks": 2,
    "num_heads": 2,
    "patch_size": 1,
    "mlp_ratio": 2,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "use_fp16": False,
}


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: list[str]
    err: str


@pytest.fixture
def gena3d(capsys) -> Callable[..., Done]:
    """Run `gena3d checkpoint ...`; its lines on stdout."""

    def run(*arguments: object) -> Done:
        try:
            code = main(["checkpoint", *(str(a) for a in arguments)])
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out.splitlines(), captured.err)

    return run


def published_name(key: str) -> str:
    """Our name of a parameter of `SparseStructureFlow` -> the published one."""
    return (
        key.replace(".norms.cross_attn.", ".norm2.")
        .replace(".modulations.", ".")
        .replace(".operations.", ".")
        .replace(".q_norm.", ".q_rms_norm.")
        .replace(".k_norm.", ".k_rms_norm.")
    )


@pytest.fixture
def tiny_flow() -> tuple[dict[str, Any], Any, dict[str, torch.Tensor]]:
    """Constructor arguments, module and published weights of a random flow."""
    return dict(TINY_FLOW), *random_flow(TINY_FLOW)


def random_flow(constructor: dict[str, Any], seed: int = 0) -> tuple[Any, dict[str, torch.Tensor]]:
    """A flow with every parameter drawn, none zero, and its weights under their published names."""
    torch.manual_seed(seed)
    module, _ = build_published("SparseStructureFlowModel", constructor)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    weights = {published_name(key): tensor.clone() for key, tensor in module.state_dict().items()}
    return module.eval(), weights


@pytest.fixture
def make_case() -> Callable[..., Path]:
    """Writes a case about a random flow and gives its folder; the expected values are those of our own module."""

    def make(folder: Path, seed: int = 0, batch: int = 1, **changes: Any) -> Path:
        constructor = TINY_FLOW | changes
        module, weights = random_flow(constructor, seed)
        resolution = constructor["resolution"]
        inputs = {
            "x": torch.randn(batch, constructor["in_channels"], *[resolution] * 3),
            "t": 1000 * torch.rand(batch),
            "cond": torch.randn(batch, 5, constructor["cond_channels"]),
        }
        with torch.no_grad():
            expected = module(inputs["x"], inputs["t"], module.contexts(single_views(inputs["cond"])))
        folder.mkdir(parents=True)
        description = {"task": "a", "constructor": constructor, "tolerance": {"atol": 1e-4, "rtol": 1e-4}}
        (folder / "case.json").write_text(json.dumps(description))
        save_file(
            {**{f"in.{k}": v for k, v in inputs.items()}, "out.v": expected.contiguous()}, folder / "io.safetensors"
        )
        save_file(weights, folder / "weights.safetensors")
        return folder

    return make


@pytest.fixture
def tiny_network() -> Callable[..., Path]:
    """Writes the published name.json and name.safetensors of a random flow; gives the path of the latter."""

    def make(path: Path, seed: int = 0, **changes: Any) -> Path:
        _, weights = random_flow(TINY_FLOW | changes, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        description = {"name": "SparseStructureFlowModel", "args": TINY_FLOW | changes}
        path.with_name(path.name + ".json").write_text(json.dumps(description))
        file = path.with_name(path.name + ".safetensors")
        save_file(weights, file)
        return file

    return make


SAMPLER = {
    "name": "FlowEulerGuidanceIntervalSampler",
    "args": {"sigma_min": 1e-5},
    "params": {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No checkpoint of this machine is found, and no hub is asked."""
    empty = tmp_path / "nowhere"
    empty.mkdir()
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.setenv("TORCH_HOME", str(empty))
    monkeypatch.chdir(empty)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("gena3d_core.checkpoints.registry.PACKAGED", empty)


@pytest.fixture
def pipeline() -> Callable[..., Path]:
    """Writes a pipeline.json and gives its folder."""

    def write(folder: Path, **changes: Any) -> Path:
        args = {"models": {"sparse_structure_flow_model": "ckpts/flow"}, "sparse_structure_sampler": SAMPLER} | changes
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.json").write_text(json.dumps({"name": "TrellisImageTo3DPipeline", "args": args}))
        return folder

    return write


@pytest.fixture
def tiny(tmp_path, tiny_network, pipeline) -> Path:
    """A pipeline of one tiny network."""
    tiny_network(tmp_path / "tiny/ckpts/flow")
    return pipeline(tmp_path / "tiny")


@pytest.fixture
def fake_hub(monkeypatch) -> Callable[[dict[str, Path]], list[tuple]]:
    """Installs a huggingface_hub whose cache has the folders (by repository) and gives its calls; no download works."""

    def install(folders: dict[str, Path]) -> list[tuple]:
        calls: list[tuple] = []

        def snapshot_download(repo_id, *, revision=None, local_files_only=False, allow_patterns=None):
            calls.append((repo_id, revision, local_files_only, tuple(allow_patterns)))
            if repo_id not in folders:
                raise FileNotFoundError("LocalEntryNotFound" if local_files_only else "no connection")
            return str(folders[repo_id])

        module: Any = ModuleType("huggingface_hub")
        module.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        # The real one may have been imported by an earlier test; its parts must not be found beside the false one.
        monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
        return calls

    return install
