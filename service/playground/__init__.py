"""Static files of the playground, a web page. `service.api.playground` serves them."""
