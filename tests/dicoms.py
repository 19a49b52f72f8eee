"""DICOM files for tests, written by pydicom."""

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"


def dicom(pixels, space=None, syntax=ExplicitVRLittleEndian, value=None, **elements):
    """Bytes of a DICOM file of pixels H x W or H x W x 3. value: the stored bytes, where they are others.

    elements: by their keyword, added or replaced; None removes one.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = syntax
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.Modality = PATIENT, "4711", "OT"
    bits = 8 * pixels.dtype.itemsize
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.PhotometricInterpretation = space or ("MONOCHROME2" if pixels.ndim == 2 else "RGB")
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = bits
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, element in elements.items():
        if element is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, element)
    made.HighBit = made.BitsStored - 1
    order = pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")
    made.PixelData = np.ascontiguousarray(pixels).astype(order).tobytes() if value is None else value
    if len(made.PixelData) % 2:
        made.PixelData += b"\0"
    made["PixelData"].VR = "OB" if bits == 8 or syntax.is_encapsulated else "OW"
    if syntax.is_encapsulated:
        made["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
