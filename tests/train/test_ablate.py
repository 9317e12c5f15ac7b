from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig  # noqa: E402
from facestream.train.ablate import USUAL, VARIANTS, command, settings_of, table, verdict  # noqa: E402
from facestream.train.loop import Run  # noqa: E402
from msgspec import to_builtins  # noqa: E402

from tests.pack import make_pack  # noqa: E402


def test_every_ablation_of_the_paper_has_its_row_and_its_number() -> None:
    sections = {v.section for v in VARIANTS.values()}
    assert {"3.3", "4.1", "4.3", "4.6", "4.7", "4.8", "4.9", "4.10", "SNIP"} == sections
    sizes = {name: v.paper for name, v in VARIANTS.items() if v.section == "4.7"}  # table 3
    assert sizes == {"600x1000": "68.6", "800x1200": "78.4", "1200x1600": "81.4", "1400x1800": "81.0"}
    assert not set(sizes) & set(USUAL)


@pytest.mark.parametrize("model", ["retinaface", "narrow", "vgg16"])
def test_variants_differ_in_their_switch_alone(model: str) -> None:
    base = to_builtins(settings_of(VARIANTS["ssh"], model, 10, 0, {}))
    assert base["loss"] == "mined"
    assert base["assign"]["fewest"] == 0
    for name in ("only-m2", "no-ohem", "no-fusion", "finer-anchors", "no-context"):
        config = settings_of(VARIANTS[name], model, 10, 0, {})
        changed = {k for k, v in to_builtins(config).items() if v != base[k]}
        assert changed == set(VARIANTS[name].change)
    snip, without = (to_builtins(settings_of(VARIANTS[n], model, 10, 0, {})) for n in ("snip", "multi-scale"))
    assert {k for k in snip if snip[k] != without[k]} == {"levels"}


def test_the_order_is_judged_against_the_seeds_spread() -> None:
    assert verdict(-3.0, -1, [50.0], [53.0]) == "as in the paper"
    assert verdict(2.0, -1, [55.0], [53.0]) == "against the paper"
    assert verdict(-0.5, -1, [50.0, 54.0], [52.0, 53.0]) == "within the spread of the seeds"
    assert verdict(5.0, 0, [5.0], [0.0]) == ""


def test_the_table_has_the_papers_numbers_beside_ours() -> None:
    row = {"miss_rate": {"0-20": 0.25}, "ms_per_image": 7.0}
    text = table({"ssh": [{**row, "ap": {"all": 0.8}}], "only-m2": [{**row, "ap": {"all": 0.7}}]})
    assert "| only-m2 | 4.6 | -12.8 (68.6) | 70.0 | -10.0 | 25.0 % | 7 | as in the paper |" in text


def test_a_cut_runner_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = make_pack(tmp_path / "pack", 2)
    trained: list[str] = []
    train = Run.train

    def counted(run: Run, *args: object) -> None:
        trained.append(run.out.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        train(run)

    monkeypatch.setattr(Run, "train", counted)
    words = [
        "--data", str(pack), "--steps", "2", "--only", "no-context", "--only", "pyramid", "--model", "narrow",
        "--out", str(tmp_path / "out"), "--limit", "1", "--workers", "0", "--device", "cpu", "--threads", "1",
        "--set", "sizes=[64]", "--set", "batch=2",
    ]  # fmt: skip
    assert CliRunner().invoke(command, words).exit_code == 1  # stopped in the second training
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert trained == [
        "ssh-seed0",
        "no-context-seed0",
        "no-context-seed0",
    ]  # the first was kept, pyramid takes its weights
    assert json.loads((tmp_path / "out/pyramid-seed0/result.json").read_text())["images"] == 1
    assert (tmp_path / "out/table.md").read_text().count("\n") == 2 + 3
    assert "| pyramid | 4.3 | +3.1 (84.5) |" in done.output
    other = CliRunner().invoke(command, [*words, "--set", "lr=0.5"])
    assert isinstance(other.exception, BadConfig)
    assert "other settings" in str(other.exception)
