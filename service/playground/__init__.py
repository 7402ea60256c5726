"""The web page: what a browser is sent. `service.api.playground` serves it."""
