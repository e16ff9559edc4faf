"""Personal data hashed or left out of what a source gives, before anything of it lands: `extractions.treated`."""
