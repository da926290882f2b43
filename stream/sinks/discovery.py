"""Home Assistant's discovery: one retained message makes a session a device with its sensors.

The format: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload. Keys are written out, not abbreviated:
the list of abbreviations has changed before.
"""

from typing import Any

from stream import __version__
from stream.config import MqttConfig
from stream.messages import SessionInfo

EXPIRES_S = 10  # a score so old says nothing of the present, though the connection be there
_RUNNING = "{{ 'online' if value_json.state in ['running', 'degraded'] else 'offline' }}"


def discovery(info: SessionInfo, config: MqttConfig) -> tuple[str, dict[str, Any]]:
    """The topic of a session's discovery and what it holds."""
    node = f"{config.prefix}/{info.node}"
    session, name = f"{node}/{info.session}", f"{info.node}_{info.session}"
    latest = f"{session}/latest"
    components: dict[str, dict[str, Any]] = {
        "score": {
            "platform": "sensor",
            "unique_id": f"{name}_score",
            "name": "Sentiment",
            "state_class": "measurement",
            "suggested_display_precision": 2,
            "icon": "mdi:emoticon-outline",
            "state_topic": latest,
            "value_template": "{{ value_json.sentiment_smooth }}",
            "json_attributes_topic": latest,
            "expire_after": EXPIRES_S,
        },
        "polarity": {
            "platform": "sensor",
            "unique_id": f"{name}_polarity",
            "name": "Polarity",
            "device_class": "enum",
            "options": ["positive", "neutral", "negative"],
            "state_topic": latest,
            "value_template": "{{ value_json.polarity }}",
            "expire_after": EXPIRES_S,
        },
        "face": {
            "platform": "binary_sensor",
            "unique_id": f"{name}_face",
            "name": "Face in view",
            "device_class": "occupancy",
            "state_topic": latest,
            "value_template": "{{ 'ON' if value_json.modalities.vision.status == 'ok' else 'OFF' }}",
            "expire_after": EXPIRES_S,
        },
        "state": {
            "platform": "sensor",
            "unique_id": f"{name}_state",
            "name": "State",
            "entity_category": "diagnostic",
            "state_topic": f"{session}/state",
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": f"{session}/state",
        },
    }
    if "vision" in info.unavailable:
        del components["face"]
    found = {
        "device": {
            "identifiers": [name],
            "name": f"Sentiment {info.session}",
            "manufacturer": "mmlatch-live",
            "model": info.model,
            "sw_version": __version__,
        },
        "origin": {"name": "mmlatch-live", "sw_version": __version__},
        "availability": [
            {"topic": f"{node}/status"},
            {"topic": f"{session}/state", "value_template": _RUNNING},
        ],
        "availability_mode": "all",
        "components": components,
    }
    return f"{config.discovery_prefix}/device/{name}/config", found
