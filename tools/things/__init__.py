"""Things in real photos, marked by eye, and the masks that follow from the marks; see tools/things/README.md."""
