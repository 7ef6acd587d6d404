"""Medical images: from DICOM, NIfTI and photographs to arrays that a model can learn from."""
