"""Floor 1: files that are written whole or not at all, pictures, videos, and the one conversion of their pixels."""
