"""Where scores go: console, JSON lines, MQTT."""
