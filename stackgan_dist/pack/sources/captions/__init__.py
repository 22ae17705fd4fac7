"""What people write the captions of their pictures in: text files beside them, tables, JSON in its forms, parquet."""
