"""The ground floor: files that are written whole or not at all, pictures, videos, and the conversion of pixels."""
