"""From simulated people to a report and a model at rest, the whole way, in small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io

from anxin.errors import NotFound
from device_sim.record import record
from device_sim.scenarios import scenario
from models import artefacts, deterioration, evaluate, report, train
from models.artefacts import DamagedModel
from models.datasets import Dataset, NoData, SamePeople, read
from models.deterioration import RISING, VITALS_AND_AGE
from models.examples import examples, usual_before, windows
from models.features import BODY, COLUMN, HOURS, VITALS


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "simulated"
    people = record(
        folder,
        residents=330,
        days=3,
        scenarios=[scenario("sepsis"), scenario("fever")],
        affected=60,
        seed=4,
    )
    assert people == (330, 120)
    return folder


@pytest.fixture(scope="module")
def dataset(recorded: Path) -> Dataset:
    return read(recorded)[0]


@pytest.fixture(scope="module")
def kept(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    train.train(recorded, "deterioration", folder)
    return folder


@pytest.fixture(scope="module")
def judged(recorded: Path) -> report.Report:
    return evaluate.evaluate(recorded)


def test_a_recording_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record(
            tmp_path / name, residents=12, days=2, scenarios=[scenario("fever")], affected=3, seed=9
        )
    for file in ("hourly.parquet", "residents.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_recorded_people_are_plausible_and_the_ill_differ(dataset: Dataset) -> None:
    assert len(dataset.people) == 330
    assert np.isfinite(dataset.onset).sum() == 120
    measured = np.isfinite(dataset.values[:, :BODY]).mean(axis=0)
    assert (measured > 0.1).all()
    assert (measured < 1).all()
    onset = dataset.onset[dataset.person]
    with np.errstate(invalid="ignore"):
        near = np.abs(dataset.hour - onset) < 2
    temperature = dataset.values[:, VITALS.index("temp")]
    assert np.nanmean(temperature[near]) > np.nanmean(temperature[np.isnan(onset)]) + 0.5


def test_the_report_tells_every_figure_with_its_interval(judged: report.Report) -> None:
    inside, apart = judged.sections
    assert inside.how.startswith("five-fold")
    assert apart.how.startswith("hold-out")
    assert inside.people + apart.people == 330
    for section in judged.sections:
        assert section.results[0].role == "model"
        assert {"NEWS2", "Fixed limits", "Isolation forest"} <= {
            one.name for one in section.results
        }
        for one in section.results:
            assert one.auroc.low <= one.auroc.value <= one.auroc.high
            assert [budget.budget for budget in one.budgets] == [0.25, 0.5, 1.0, 2.0]
            assert all(budget.false_rate <= budget.budget for budget in one.budgets)
        assert section.results[0].auroc.value > 0.8  # simulated illness is easy
    assert {one.verdict for one in inside.differences} <= {"better", "no better", "worse"}


def test_the_page_needs_nothing_else(judged: report.Report, tmp_path: Path) -> None:
    report.write(judged, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    for foreign in ("<script", "http://", "https://", "<link", "<img", "@import"):
        assert foreign not in page
    figures = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert figures["data"]["simulated"].keys() == {"hourly.parquet", "residents.csv"}
    assert any("AUROC" in line for line in judged.summary())


def test_others_are_judged_by_what_was_learned_apart(recorded: Path, tmp_path: Path) -> None:
    record(
        tmp_path / "others", residents=60, days=3, scenarios=[scenario("sepsis")], affected=15,
        seed=71,
    )  # fmt: skip
    (section,) = evaluate.evaluate(tmp_path, recorded.parent).sections
    assert (section.data, section.taught_by) == ("others", "simulated")
    assert section.how == "people never seen: learned from other people, elsewhere"
    assert (section.people, section.events) == (60, 15)
    assert all(budget.fixed is not None for budget in section.results[0].budgets)
    with pytest.raises(SamePeople):
        evaluate.evaluate(recorded, recorded)


def test_evaluating_twice_gives_the_same_figures(judged: report.Report, dataset: Dataset) -> None:
    near = dataset.of_people(np.flatnonzero(~evaluate.held_out(len(dataset.people))))
    given = examples(near)

    def learn(rows: Any) -> Any:
        model = deterioration.fit(rows, VITALS_AND_AGE)
        return lambda others: model.score(others.x)

    score = deterioration.crossfit(given, learn)
    asked = given.asked
    ranking = evaluate.Ranking(score[asked], given.y[asked], given.person[asked])
    assert ranking.auroc(np.ones(len(near.people))) == judged.sections[0].results[0].auroc.value


def test_nobody_is_judged_by_a_model_that_has_seen_them(dataset: Dataset) -> None:
    given = examples(dataset)
    seen: list[set[int]] = []

    def learn(rows: Any) -> Any:
        people = set(rows.person.tolist())
        seen.append(people)

        def judge(others: Any) -> Any:
            assert not people & set(others.person.tolist())
            return np.zeros(len(others.y))

        return judge

    deterioration.crossfit(given, learn)
    assert len(seen) == 5


def test_the_score_never_falls_with_what_medicine_says_is_worse(dataset: Dataset) -> None:
    given = examples(dataset)
    model = deterioration.fit(given.only(given.taught), VITALS_AND_AGE)
    some = given.x[::97].copy()
    before = model.score(some)
    for name in sorted(RISING & set(VITALS_AND_AGE)):
        worse = some.copy()
        worse[:, COLUMN[name]] += 1.0
        assert (model.score(worse) >= before - 1e-9).all(), name


def test_a_model_is_read_back_as_it_was_kept(kept: Path, dataset: Dataset) -> None:
    model = artefacts.load(kept, "deterioration")
    assert model.card.events == 120
    assert model.card.question == "deterioration"
    assert sum(model.card.shares) == pytest.approx(1)
    rows = np.arange(0, len(dataset.person), 53)
    person = dataset.person[rows]
    there = (
        windows(dataset, rows),
        dataset.age[person],
        dataset.sex[person],
        usual_before(dataset)[rows],
    )
    risk = model.risk(*there)
    assert ((risk > 0) & (risk < 1)).all()
    thresholds = [model.threshold(budget) for budget in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert model.threshold(0.7) == model.threshold(0.5)
    assert model.threshold(0.01) == model.threshold(0.02)


def test_the_vital_sign_that_is_bent_has_the_largest_share(kept: Path) -> None:
    model = artefacts.load(kept, "deterioration")
    calm = np.array([72.0, 15.5, 97.0, 36.5, 128.0, 75.0, np.nan, np.nan])
    usual = np.broadcast_to(calm[:BODY], (2, BODY))
    values = np.broadcast_to(calm, (2, HOURS, len(VITALS))).copy()
    values[0, -5:, VITALS.index("temp")] = 39.3
    values[1, -5:, VITALS.index("rr")] = 30
    shares = model.shares(values, np.full(2, 80.0), np.ones(2), usual)
    assert VITALS[int(shares[0].argmax())] == "temp"
    assert VITALS[int(shares[1].argmax())] == "rr"
    assert np.allclose(shares[:, VITALS.index("gcs")], 0)


def test_who_is_very_ill_is_at_risk_also_without_a_past() -> None:
    model = artefacts.load(artefacts.SHIPPED, "deterioration")
    values = np.full((2, HOURS, len(VITALS)), np.nan)
    values[0, -1, :BODY] = [72, 15, 97, 36.5, 128, 75]
    values[1, -1, :BODY] = [136, 32, 86, 39.2, 82, 45]
    well, ill = model.risk(values, np.full(2, 80.0), np.ones(2), np.full((2, BODY), np.nan))
    assert well < model.threshold(0.1) < ill


def test_a_changed_byte_is_found(kept: Path, tmp_path: Path) -> None:
    folder = copy(kept, tmp_path)
    (file,) = folder.rglob("model.skops")
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(DamagedModel, match="not the file"):
        artefacts.load(folder, "deterioration")


def test_an_object_that_is_not_listed_is_not_read(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "TRUSTED", artefacts.TRUSTED[:-1])
    with pytest.raises(DamagedModel, match=r"objects that are not read: \['sklearn"):
        artefacts.load(kept, "deterioration")


def test_there_is_a_way_back_to_the_version_before(kept: Path, tmp_path: Path) -> None:
    folder = copy(kept, tmp_path)
    first = artefacts.load(folder, "deterioration")
    with pytest.raises(NotFound, match="no earlier version"):
        artefacts.roll_back(folder, "deterioration")
    later = artefacts.keep(folder, first.card, first.deterioration, first.novelty)
    assert artefacts.versions(folder, "deterioration") == [first.card.version, later.version]
    assert artefacts.load(folder, "deterioration").card.version == later.version
    assert artefacts.roll_back(folder, "deterioration") == first.card.version
    assert artefacts.load(folder, "deterioration").card.version == first.card.version


def test_no_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="anxin train"):
        artefacts.load(tmp_path, "deterioration")


def test_what_ships_can_be_read_and_says_that_it_is_simulated() -> None:
    model = artefacts.load(artefacts.SHIPPED, "deterioration")
    assert any("simulat" in line for line in model.card.limits)
    assert model.card.name == "deterioration"


def test_too_few_events_teach_nothing(tmp_path: Path) -> None:
    record(
        tmp_path / "few", residents=20, days=2, scenarios=[scenario("fever")], affected=4, seed=1
    )
    with pytest.raises(NoData, match="100 events"):
        train.train(tmp_path, "deterioration", tmp_path / "kept")
    found = evaluate.evaluate(tmp_path / "few")
    assert not found.sections
    assert found.left_out == ["few, deterioration: nothing to learn from has 100 events"]


def test_what_skops_writes_names_only_listed_kinds(kept: Path) -> None:
    (file,) = kept.rglob("model.skops")
    assert set(skops.io.get_untrusted_types(file=file)) <= set(artefacts.TRUSTED)


def copy(folder: Path, into: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            target = into / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return into
