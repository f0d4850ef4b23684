"""The card says what the checkpoint and the table say, and refuses others."""

from __future__ import annotations

import json
from dataclasses import replace

from gena3d_core.checkpoints.presets import random_bundle, random_scene_bundle
from gena3d_core.checkpoints.save import save_bundle
from training.model_card import main

FACTS = {
    "license": "Apache-2.0",
    "command": "python -m training.make_edge --data shards",
    "commit": "abc123",
    "occupancy_temperature": 2.5,
    "data": {"examples": 10, "objects": 7, "objects_by_category": {"mug": 2, "procedural": 5}},
    "flow": {"step": 400, "hours": 1.5, "held_out_loss": 0.4321},
    "vae": {"step": 300, "hours": 0.5, "iou": 0.912},
}
ROW = {"method": "edge", "views": 2, "occlusion": 0.5, "objects": 3, "iou": 0.612, "chamfer": 0.0345, "psnr": 20.0}


def checkpoint(folder, metadata):
    save_bundle(replace(random_bundle("tiny"), metadata=metadata), folder)
    return folder


def test_card_with_tables_of_every_group(tmp_path, capsys):
    folder = checkpoint(tmp_path / "edge", FACTS)
    table = {
        "command": "evaluate objects",
        "arguments": {"split": "val", "hypotheses": 4, "seed": 0},
        "objects": ["a", "b", "c"],
        "rows": [ROW],
        "groups": {"everyday": [{**ROW, "iou": 0.5}]},
    }
    (tmp_path / "rows.json").write_text(json.dumps(table))
    assert main([str(folder), "--table", str(tmp_path / "rows.json")]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "MODEL_CARD.md")
    text = (folder / "MODEL_CARD.md").read_text()
    data = "10 examples of 7 objects: 5 procedural, 2 mug"
    for part in ("abc123", "Apache-2.0", "VAE IoU 0.912", data, "3 objects of the split 'val'"):
        assert part in text
    assert "| edge | 2 | 0.5 | 3 | 0.612 | 3.45 |" in text
    assert "| edge | 2 | 0.5 | 3 | 0.500 | 3.45 |" in text
    assert "PSNR" not in text


SCENE_FACTS = {
    "license": "Apache-2.0",
    "commit": "abc123",
    "recipe": "scene_edge",
    "history": "another run before",
    "settings": {"batch": 8, "learning_rate": 5e-4, "decay_steps": 3, "data": "/somewhere", "betas": [0.9, 0.99]},
    "data": {"examples": 90, "scenes": 30},
    "step": 250,
    "hours": 0.5,
    "held_out_flow": 0.7123,
    "held_out_translation_error": 0.2345,
}


def test_card_of_scenes(tmp_path):
    folder = tmp_path / "edge_scene"
    save_bundle(replace(random_scene_bundle("tiny"), metadata=SCENE_FACTS), folder)
    row = {"method": "scene", "scenes": 2, "failed": 0, "cd_s": 0.0567, "iou_b": 0.41, "seconds_per_asset": 0.5}
    table = {
        "command": "evaluate scenes",
        "arguments": {"split": "val", "views": 1, "seed": 0},
        "scenes": ["a", "b"],
        "rows": [row],
    }
    (tmp_path / "rows.json").write_text(json.dumps(table))
    assert main([str(folder), "--table", str(tmp_path / "rows.json")]) == 0
    text = (folder / "MODEL_CARD.md").read_text()
    for part in (
        "another run before",
        "abc123",
        "90 pictures",
        "30 scenes",
        "translation error 0.234",
        "2 scenes of the split 'val'",
    ):
        assert part in text
    assert "training.train scene_edge batch=8 decay_steps=3`" in text
    assert "/somewhere" not in text
    assert "| scene | 2 | 0 | 5.67 | 0.410 | 0.50 |" in text
    (tmp_path / "rows.json").write_text(json.dumps({"command": "evaluate objects"}))
    assert main([str(folder), "--table", str(tmp_path / "rows.json")]) == 1


def test_refuses_what_it_cannot_describe(tmp_path, capsys):
    folder = checkpoint(tmp_path / "other", {"license": "MIT"})
    assert main([str(folder)]) == 1
    assert "was it made by make_edge?" in capsys.readouterr().err
    (tmp_path / "rows.json").write_text(json.dumps({"command": "evaluate recording"}))
    good = checkpoint(tmp_path / "edge", FACTS)
    assert main([str(good), "--table", str(tmp_path / "rows.json")]) == 1
    assert "is not of `gena3d evaluate objects`" in capsys.readouterr().err
    assert main([str(good)]) == 0
