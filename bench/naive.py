"""The obvious way, as a baseline: paho-mqtt subscribes, one INSERT and one commit per message.

`python -m bench.naive PORT` writes into the table `baseline` of the database ANXIN_BENCH_DATABASE.
"""

import json
import os
import sys

import paho.mqtt.client as mqtt
import psycopg
from paho.mqtt.enums import CallbackAPIVersion

_INSERT = """
    INSERT INTO baseline (device, ts, hr, rr, spo2, temp, sbp, dbp, movement)
    VALUES (%s, to_timestamp(%s / 1000.0), %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_METRICS = ("hr", "rr", "spo2", "temp", "sbp", "dbp", "movement")


def main() -> None:
    """Subscribe and write until the process is ended."""
    connection = psycopg.connect(os.environ["ANXIN_BENCH_DATABASE"])

    def store(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        device = message.topic.split("/")[2]
        reading = json.loads(message.payload)
        values = [reading[metric] for metric in _METRICS]
        connection.execute(_INSERT, [device, reading["ts"], *values])
        connection.commit()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="baseline")
    client.on_message = store
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.subscribe("anxin/v1/+/telemetry", qos=1)
    print("ready", flush=True)
    client.loop_forever()


if __name__ == "__main__":
    main()
