"""What files and landed objects are made of: CSV, JSON lines, Parquet, compression."""
