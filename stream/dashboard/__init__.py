"""The web page: a sink that shows sessions in a browser, offline, on this machine unless told otherwise."""
