"""HTTP/1.1 for bodies of any size; knows neither Webex nor S3."""
