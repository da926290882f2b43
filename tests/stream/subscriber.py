"""Prints what comes on a broker, a JSON object a line: python -m tests.stream.subscriber PORT VERSION TOPIC."""

import json
import sys
import time
from typing import Any

import paho.mqtt.client as paho


def main() -> None:
    port, version, topic = sys.argv[1:]
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5 if version == "5" else paho.MQTTv311, reconnect_on_failure=True
    )
    client.reconnect_delay_set(0.02, 0.02)  # type: ignore[arg-type]

    def say(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    def subscribe(*_: Any) -> None:
        client.subscribe(topic, 1)

    def subscribed(*_: Any) -> None:
        sys.stdout.write("subscribed\n")
        sys.stdout.flush()

    def heard(_client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties.json() if version == "5" and message.properties else {}
        say(
            topic=message.topic,
            payload=message.payload.decode(),
            qos=message.qos,
            retain=message.retain,
            at_s=time.time(),
            properties=properties,
        )

    client.on_connect, client.on_subscribe, client.on_message = subscribe, subscribed, heard
    client.connect("127.0.0.1", int(port))
    client.loop_forever()


if __name__ == "__main__":
    main()
