"""A compiled model or an artifact's record comes in; text, JSON and pages for people go out."""
