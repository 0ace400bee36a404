"""The simulated illnesses, second by second: the tick tells of them before the rules do."""

from collections.abc import Iterator

import numpy as np
import pytest

from anxin.messages import Telemetry, decode_object
from anxin.rules import MEDIUM, SPOT_KINDS, Live, judge
from anxin.vitals import NAMES, PRESENCE
from device_sim.scenarios import Appearance, scenario
from device_sim.scene import Scene
from models import explain, tick
from models.policy import LAYERS, MODES
from models.tick import SIGNS, Heard, Ward
from tests.unit.test_sim_people import NOON_S, devices_of

PERSON = 2
LOOK_S = 15
ALARMING = np.full((len(LAYERS), 1), MODES.index("alarming"), np.int8)


class House:
    """One resident with its devices, the live rules, and the tick beside them."""

    def __init__(self, name: str) -> None:
        """Let it begin a minute after noon."""
        self.scene = Scene(devices_of(3), seed=1, start_s=NOON_S)
        self.scene.happen(Appearance(scenario(name), PERSON, NOON_S + 60))
        mine = [d for d in self.scene.devices if d.resident == self.scene.residents[PERSON]]
        self.row = {device.id: number for number, device in enumerate(mine)}
        self.live, self.rules = Live(), dict[str, int]()
        for device in mine:
            row = self.live.add()
            self.live.spot[row] = device.kind in SPOT_KINDS
        number = np.array([1])
        self.ward = Ward(
            number, number, number, np.zeros(1, np.bool_), np.array([80.0]), np.ones(1)
        )

    def play(self, hours: float) -> Iterator[tuple[float, int, bool, str]]:
        """Yield at every look: seconds, the highest rule, whether the tick tells, and what."""
        for now_s in range(int(NOON_S), int(NOON_S + hours * 3600), LOOK_S):
            for message in self.scene.due(now_s):
                if message.topic == "telemetry" and message.device_id in self.row:
                    self._read(self.row[message.device_id], decode_object(message.payload), now_s)
            judged = tick.judge(self.ward, np.array([0]), now_s, 14.0)
            highest = max(self.rules.values(), default=0)
            decided = tick.decide(self.ward, judged, (), np.array([highest], np.int8), ALARMING)
            said = explain.sentence(tick.explained(self.ward, judged, 0, model="news2"))
            yield now_s - NOON_S, highest, bool(decided.tell[0]), said.zh

    def _read(self, row: int, one: Telemetry, now_s: float) -> None:
        at_s = int(str(one.ts)) / 1000
        presence = PRESENCE.index(one.presence) if one.presence else -1
        for trigger in judge(
            self.live, np.array([row]), np.array([int(at_s * 1e6)]),
            np.array([[getattr(one, name) for name in NAMES]]), np.array([presence]),
            np.ones(1, np.bool_),
        ):  # fmt: skip
            self.rules[trigger.kind] = trigger.priority
        value, times = np.full((len(SIGNS), 1), np.nan), np.full((len(SIGNS), 1), np.nan)
        for sign, name in enumerate(SIGNS[:6]):
            if not np.isnan(getattr(one, name)):
                value[sign], times[sign] = getattr(one, name), at_s
        heard = Heard(
            np.array([row]), np.array([1]), np.array([at_s]), np.array([float(now_s)]),
            np.array([-np.inf]), np.array([max(presence, 0)]), value, times,
        )  # fmt: skip
        tick.take(self.ward, heard, loading=False)


@pytest.mark.parametrize(("name", "hours"), [("sepsis", 6.0), ("fever", 2.5)])
def test_an_illness_is_told_before_any_rule_of_its_priority(name: str, hours: float) -> None:
    told, ruled, sentences = [], [], []
    for at_s, highest, tells, said in House(name).play(hours):
        if highest >= MEDIUM:
            ruled.append(at_s)
        if tells:
            told.append(at_s)
            sentences.append(said)
    print(name, [f"{at / 3600:.2f} h {said}" for at, said in zip(told, sentences, strict=True)],
          f"first rule {ruled[0] / 3600:.2f} h")  # fmt: skip
    assert told[0] < ruled[0]
    assert "呼吸" in sentences[0]
    assert "部分评分" in sentences[0], "without consciousness and oxygen it is not NEWS2"


def test_a_calm_afternoon_tells_nothing() -> None:
    assert not any(tells for _, _, tells, _ in House("normal_week").play(3))
