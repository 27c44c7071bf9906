"""Floor 3: what people look at. Flow as pictures, clips as files."""
