"""Chat completions: from an OpenAI body to a request of the mesh, and back."""
