"""Where scores go: console and JSON lines; MQTT, dashboard and recorder come with publishing."""
