"""The typed schema where Hydra's DictConfig ends: types, limits, names."""
