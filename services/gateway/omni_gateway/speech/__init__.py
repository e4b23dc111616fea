"""Speech: from a text of OpenAI's API to a request of the mesh, and back as a file, a stream of one or events."""
