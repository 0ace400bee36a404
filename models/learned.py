"""The learned layers as the risk duty uses them: loaded by hash, watched, kept to a budget.

Whatever is wrong with a model is said here in a sentence (`fault`), and NEWS2 and the rules go on
without it. scikit-learn is loaded only where there is a model to load.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from anxin.errors import AnxinError
from anxin.logs import log
from models import tick
from models.drift import Watch
from models.policy import BLOCKS, LAYERS, Budget, Layer, keep_budget
from models.tick import SIGNS, Judged, LayerScore, Ward

if TYPE_CHECKING:
    from models.artefacts import RiskModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAME: Final = "deterioration"
ALARMS_PER_DAY: Final[Mapping[Layer, float]] = {"deterioration": 0.1, "novelty": 0.05}
"""What a station bears of each layer, per resident and day."""
STRANGE: Final = 0.65
"""(check) From here on a day is unlike others; half the range of the score is ordinary."""
NOVELTY_SECONDS: Final = 3600.0
_log = log(__name__)


class Learned:
    """The model in use, if there is one, and how it does."""

    def __init__(self, folder: Path | None) -> None:
        """Prepare to load from `folder`; None is what comes with the program."""
        self._folder = folder
        self._model: RiskModel | None = None
        self._watch: Watch | None = None
        self._version = ""
        self._fault: str | None = None
        self._budgets: dict[Layer, Budget] = {}
        self._stations = np.empty(0, np.int64)

    @property
    def fault(self) -> str | None:
        """Why no learned layer is used at present, in plain words."""
        if self._fault is None and self._watch is not None and self._watch.drifted:
            return (
                "The people here are not like those that the model learned from (see drift): "
                "NEWS2 and the rules go on without it. Train it on recordings of your own."
            )
        return self._fault

    @property
    def version(self) -> str:
        """The version in use, or that failed; empty for none."""
        return self._version

    @property
    def name(self) -> str:
        """What scores were made with, as it is stored with them."""
        return "news2" if self._model is None else f"news2+{NAME}-{self._version}"

    def reload(self) -> None:
        """Load what is in use now, unless it is loaded; takes a while, so in a thread."""
        try:
            from models import artefacts  # noqa: PLC0415  scikit-learn takes a second to load

            folder = self._folder or artefacts.SHIPPED
            used = artefacts.versions(folder, NAME)
            if used and used[-1] == self._version:
                return
            self._version = used[-1] if used else ""
            self._model = self._watch = None
            self._model = artefacts.load(folder, NAME)
            card = self._model.card
            self._watch = Watch.of(card.edges, card.shares, card.risk_mean)
            self._fault = None
            _log.info("model_loaded", model=NAME, version=self._version)
        except ImportError as error:
            self._fail(f"What models are read with is not installed: {error}.")
        except (AnxinError, OSError) as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  whatever a file makes the library raise
            self._fail(f"The model cannot be read ({type(error).__name__}).")

    def scores(self, ward: Ward, judged: Judged) -> list[LayerScore]:
        """Return the scores of each layer in use; of drifted or broken ones none."""
        if self._model is None or self._watch is None:
            return []
        from models.features import features  # noqa: PLC0415  only where there is a model

        rows, now_s = judged.rows, judged.now_s
        values, usual = tick.day(ward, judged)
        try:
            x = features(values, ward.age[rows], ward.sex[rows], usual)
            risk = self._model.risk_of(x)
            # Without a single vital sign there is nothing that a score could mean.
            risk[np.isnan(values[:, :, : len(tick.VITALS)]).all(axis=(1, 2))] = np.nan
            due = np.flatnonzero(now_s - ward.novelty_s[rows] >= NOVELTY_SECONDS)
            if len(due):
                ward.novelty[rows[due]] = self._model.novelty.score(x[due])
                ward.novelty_s[rows[due]] = now_s
        except Exception as error:  # noqa: BLE001  a model that fails must not stop NEWS2
            self._fail(f"The model fails when it is asked ({type(error).__name__}).")
            return []
        self._watch.see(risk[due], now_s)
        if self._watch.drifted:
            return []
        threshold = self._model.threshold(ALARMS_PER_DAY["deterioration"])
        return [
            LayerScore("deterioration", risk, threshold),
            LayerScore("novelty", ward.novelty[rows], STRANGE),
        ]

    def shares(self, ward: Ward, judged: Judged, place: int) -> dict[str, float]:
        """Return what each vital sign adds to the score of one row; for alarms only."""
        if self._model is None:
            return {}
        values, usual = tick.day(ward, judged)
        row, one = judged.rows[place], slice(place, place + 1)
        found = self._model.shares(values[one], ward.age[[row]], ward.sex[[row]], usual[one])[0]
        return dict(zip(SIGNS, found.tolist(), strict=True))

    def keep_budgets(self, ward: Ward) -> None:
        """Renew the scores that each layer must reach at each station, and the verdict on drift."""
        if self._model is None or self._watch is None:
            return
        was = self._watch.drifted
        drift = self._watch.told()
        if drift.drifted != was:
            _log.error("model_drift", model=NAME, drifted=drift.drifted, psi=drift.psi)
        stations, station = np.unique(ward.station, return_inverse=True)
        self._stations = stations
        thresholds: dict[Layer, float] = {
            "deterioration": self._model.threshold(ALARMS_PER_DAY["deterioration"]),
            "novelty": STRANGE,
        }
        for layer, threshold in thresholds.items():
            budget = keep_budget(
                ward.peaks[layer], station, len(stations), threshold, ALARMS_PER_DAY[layer]
            )
            self._budgets[layer] = budget
            ward.least[LAYERS.index(layer)] = budget.least[station]

    def recall(self, ward: Ward, peaks: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """Take the last week from what is stored, as after a restart."""
        for layer in ("deterioration", "novelty"):
            found = ward.peaks[layer]
            block = max([found.block, *peaks["block"].tolist()])
            if block < 0:
                continue
            found.block = block
            rows = ward.rows_of(peaks["resident"])
            there = (rows >= 0) & (peaks["block"] > block - BLOCKS)
            places = peaks["block"][there] % BLOCKS, rows[there]
            found.score[places] = np.fmax(found.score[places], peaks[layer][there])
            rows = ward.rows_of(told["resident"])
            there = (rows >= 0) & (told["block"] > block - BLOCKS) & (told["block"] <= block)
            there &= (told["rising"] > 0) == (layer == "deterioration")
            np.maximum.at(found.alarms, (told["block"][there] % BLOCKS, rows[there]), 1)

    def state(self, layer: Layer) -> str:
        """Return as JSON what `GET /models` tells of a layer."""
        if self._model is None or self._watch is None:
            return "{}"
        card, state = self._model.card, dict[str, Any]()
        state["drift"] = msgspec.to_builtins(self._watch.told())
        state["card"] = {
            "made_at": card.made_at,
            "question": card.question,
            "learner": card.learner,
            "people": card.people,
            "events": card.events,
            "data": sorted(card.data),
            "intended_use": card.intended_use,
            "limits": card.limits,
            "thresholds": card.thresholds,
            "promised": card.promised,
            "sha256": card.sha256,
        }
        if (budget := self._budgets.get(layer)) is not None:
            state["budget"] = ALARMS_PER_DAY[layer]
            state["stations"] = {
                str(place): {"predicted": predicted, "planned": planned, "least": least}
                for place, predicted, planned, least in zip(
                    self._stations.tolist(),
                    budget.predicted.tolist(),
                    budget.planned.tolist(),
                    budget.least.tolist(),
                    strict=True,
                )
            }
        return msgspec.json.encode(state).decode()

    def _fail(self, why: str) -> None:
        if why != self._fault:
            _log.error("model_unusable", model=NAME, version=self._version, why=why)
        self._fault, self._model, self._watch = why, None, None
