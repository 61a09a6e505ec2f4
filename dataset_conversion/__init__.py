"""Converters from datasets as they are downloaded to nnU-Net's raw format, one file per dataset."""
