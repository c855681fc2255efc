"""The JSON API of the pages: operations, their answers, and the document that describes them."""
