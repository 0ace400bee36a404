"""The package mq-bridge as a baseline, run by the Python of its own environment.

`python bridge_route.py PORT` copies from MQTT into the table `bridged` of ANXIN_BENCH_DATABASE.
It imports nothing of the project: that environment holds mq-bridge alone.
"""

import logging
import os
import sys

import mq_bridge  # type: ignore[import-not-found]  # it lives in an environment of its own

INSERT = """
    INSERT INTO bridged (ts, hr, rr, spo2, temp, sbp, dbp, movement)
    VALUES (${payload:ts}, ${payload:hr}, ${payload:rr}, ${payload:spo2}, ${payload:temp},
            ${payload:sbp}, ${payload:dbp}, ${payload:movement})
"""


def main() -> None:
    """Run the route until the process is ended."""
    logging.basicConfig(stream=sys.stderr)
    mq_bridge.init_logging("warn")
    route = mq_bridge.Route.from_config(
        {
            "batch_size": 5000,
            "concurrency": 2,
            "input": {
                "mqtt": {
                    "url": f"tcp://127.0.0.1:{sys.argv[1]}",
                    "topic": "anxin/v1/+/telemetry",
                    "client_id": "mq-bridge",
                    "qos": 1,
                    "queue_capacity": 20_000,
                    "max_inflight": 65_535,
                }
            },
            "output": {
                "sqlx": {
                    "url": os.environ["ANXIN_BENCH_DATABASE"],
                    "table": "bridged",
                    "bulk_copy": True,
                    "insert_query": INSERT,
                }
            },
        },
        name="bench",
    )
    route.run()


if __name__ == "__main__":
    main()
