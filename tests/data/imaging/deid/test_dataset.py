"""Identifiers planted in every corner of a DICOM file are found before, and gone after."""

import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, UltrasoundImageStorage

from wardround.data.imaging.deid import Policy, Rules, clean
from wardround.data.imaging.deid.folder import clean_folder
from wardround.data.imaging.deid.scan import scan
from wardround.errors import DataError, Refused

NAME, NUMBER, PLACE, NURSE, PHONE = "Quackenbush^Philippa", "MRN-7754321", "Saint Eustace", "Umbridge", "0207-946-0958"
SECRETS = [NAME, NUMBER, PLACE, NURSE, PHONE, "1931-07-29", "1.2.826.0.1.3680043.99.1"]


def planted(*, rows=32, columns=32, modality="CT"):
    """A CT slice with an identifier wherever one can be."""
    d = Dataset()
    d.SOPClassUID = CTImageStorage if modality == "CT" else UltrasoundImageStorage
    d.SOPInstanceUID = "1.2.826.0.1.3680043.99.1.5"
    d.StudyInstanceUID = "1.2.826.0.1.3680043.99.1"
    d.SeriesInstanceUID = d.FrameOfReferenceUID = "1.2.826.0.1.3680043.99.1.2"
    d.Modality, d.PatientName, d.PatientID, d.PatientBirthDate = modality, NAME, NUMBER, "19310729"
    d.PatientAge, d.PatientSex, d.StudyDate, d.InstitutionName = "094Y", "F", "20250801", PLACE
    d.ReferringPhysicianName, d.StudyDescription = NURSE, f"follow-up of {NAME}"
    d.ConvolutionKernel, d.KVP, d.RescaleSlope, d.RescaleIntercept = f"for {NURSE}", "120", "1", "-1024"
    d.PatientTelephoneNumbers = PHONE
    inner, outer = Dataset(), Dataset()
    inner.PersonName, inner.TextValue, inner.StudyInstanceUID = NAME, f"call {PHONE}", d.StudyInstanceUID
    outer.ContentSequence, outer.RetrieveAETitle = Sequence([inner]), "WARD"
    outer.ReferencedSOPInstanceUID = d.SOPInstanceUID
    d.ReferencedImageSequence = d.RequestAttributesSequence = Sequence([outer])
    d.SourceImageSequence = Sequence([outer])
    block = d.private_block(0x0029, "ACME", create=True)
    block.add_new(1, "LO", NAME)
    hidden = Dataset()
    hidden.PatientID = NUMBER
    block.add_new(2, "SQ", [hidden])
    d.add_new(0x60003000, "OW", NAME.encode().ljust(128, b"\0"))
    d.add_new(0x60004000, "LT", NAME)
    d.add_new(0x50003000, "OW", NUMBER.encode().ljust(12, b"\0"))
    d.add_new(0x00091002, "UN", PHONE.encode() + b"\0")
    d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = rows, columns, 16, 12, 11, 0
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    stored = np.random.default_rng(0).integers(0, 4096, (rows, columns)).astype("<u2")
    # an overlay of old in the unused bits, and a name behind the last pixel
    d.PixelData = (stored | 0x8000).astype("<u2").tobytes() + NAME.encode()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
    d.file_meta.SourceApplicationEntityTitle = NURSE
    d.preamble = NAME.encode().ljust(128, b"\0")
    return d, stored


@pytest.fixture
def policy(tmp_path):
    return Policy.open(tmp_path / "held")


def test_planted_identifiers_are_found_before_and_gone_after(tmp_path, policy):
    d, stored = planted()
    source = tmp_path / "source" / "Quackenbush Philippa"
    source.mkdir(parents=True)
    d.save_as(source / f"{NUMBER}.dcm", enforce_file_format=True)
    before = scan(tmp_path / "source", SECRETS)
    assert {one.identifier for one in before} == set(range(len(SECRETS)))
    places = {one.place for one in before}
    assert {"name", "bytes", "PatientName", "file meta/SourceApplicationEntityTitle"} <= places
    assert "RequestAttributesSequence/ContentSequence/PersonName" in places
    result = clean_folder(tmp_path / "source", tmp_path / "out", policy)
    assert result.left == []
    assert scan(tmp_path / "out", [*SECRETS, *result.identifiers]) == []
    (clean_file,) = (tmp_path / "out").rglob("*.dcm")
    after = pydicom.dcmread(clean_file)
    np.testing.assert_array_equal(after.pixel_array, stored)
    assert (after.RescaleIntercept, after.KVP, after.Modality, after.PatientSex) == (-1024, 120, "CT", "F")
    assert after.PatientAge == "090Y"
    assert after.PatientIdentityRemoved == "YES"
    assert not any(e.tag.is_private or e.tag.group in (0x5000, 0x6000) for e in after.iterall())
    # references still lead to the same instance
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == after.SOPInstanceUID
    report = (tmp_path / "out" / "summary.json").read_text()
    assert '"left out": 0' in report


def test_uids_and_pseudonyms_agree_between_processes_and_differ_between_hospitals(tmp_path, policy):
    d, _ = planted()
    one, _ = clean(d, policy, look=False)
    again, _ = clean(d, Policy.open(tmp_path / "held"), look=False)
    other, _ = clean(d, Policy.open(tmp_path / "elsewhere"), look=False)
    assert (one.SOPInstanceUID, one.PatientID) == (again.SOPInstanceUID, again.PatientID)
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.PatientID != other.PatientID
    assert one.SOPInstanceUID.is_valid
    assert "PixelData" not in one


def test_the_source_is_not_changed(policy):
    d, _ = planted()
    before = d.to_json()
    clean(d, policy)
    assert d.to_json() == before


def test_shifted_dates_keep_their_distances(tmp_path):
    policy = Policy.open(tmp_path / "held", Rules(dates="shift"))
    d, _ = planted()
    d.SeriesDate, d.AcquisitionDateTime = "20250811", "20250801101500.5"
    after, report = clean(d, policy)
    days = [np.datetime64(f"{t[:4]}-{t[4:6]}-{t[6:8]}") for t in (after.StudyDate, after.SeriesDate)]
    assert (days[1] - days[0]).astype(int) == 10
    assert after.StudyDate != d.StudyDate
    assert after.AcquisitionDateTime[:8] == after.StudyDate
    assert after.AcquisitionDateTime[8:] == "101500.5"
    assert not after.PatientBirthDate
    assert report.counts()["shifted"] == 3


@pytest.mark.parametrize("device", [True, False])
def test_the_device_option(tmp_path, device):
    d, _ = planted()
    d.DeviceSerialNumber = "SN-4433221"
    after, _ = clean(d, Policy.open(tmp_path / "held", Rules(device=device)))
    assert (after["DeviceSerialNumber"].value == "SN-4433221") is device


def test_declared_annotation_that_is_not_found_is_refused(policy):
    d, _ = planted()
    d.BurnedInAnnotation = "YES"
    d.PixelData = np.zeros((32, 32), "<u2").tobytes()
    with pytest.raises(Refused, match="0028,0301"):
        clean(d, policy)


def test_a_short_file_is_refused_and_the_rest_goes_on(tmp_path, policy):
    d, _ = planted()
    (tmp_path / "s").mkdir()
    d.save_as(tmp_path / "s" / "good.dcm", enforce_file_format=True)
    d.PixelData = b"\0" * 10
    d.save_as(tmp_path / "s" / "bad.dcm", enforce_file_format=True)
    (tmp_path / "s" / "notes.txt").write_text("anything")
    result = clean_folder(tmp_path / "s", tmp_path / "o", policy)
    assert [name for name, _, _ in result.written] == ["good.dcm"]
    assert sorted(name for name, _ in result.left) == ["bad.dcm", "notes.txt"]


def test_a_huge_header_is_refused_before_memory_is_taken(policy):
    d, _ = planted()
    d.Rows = d.Columns = 65535
    with pytest.raises(DataError, match="limits"):
        clean(d, policy)


def test_pixels_are_checked_before_anything_is_decoded_or_written(tmp_path, policy):
    from pydicom.uid import JPEG2000Lossless

    (tmp_path / "s").mkdir()
    claims = {
        "hidden.dcm": {},  # the header says 8 x 8, and the codestream is 80 x 64
        "long.dcm": {"NumberOfFrames": 2_000_000_000},
        "short.dcm": {"NumberOfFrames": 2},
        "good.dcm": {},
    }
    for number, (name, tags) in enumerate(claims.items()):
        d, _ = planted(rows=80, columns=64)
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.99.1.{number}"
        if name == "hidden.dcm":
            d.PixelData = d.PixelData[: 80 * 64 * 2]
            d.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
            d.Rows = d.Columns = 8
        for keyword, value in tags.items():
            setattr(d, keyword, value)
        d.save_as(tmp_path / "s" / name, enforce_file_format=True)
    result = clean_folder(tmp_path / "s", tmp_path / "o", policy)
    left = dict(result.left)
    assert "codestream of frame 0 is 80 x 64 pixels, and the header says 8 x 8" in left["hidden.dcm"]
    assert "2000000000 frames" in left["long.dcm"]
    assert "is truncated" in left["short.dcm"]
    assert [name for name, _, _ in result.written] == ["good.dcm"]
    assert scan(tmp_path / "o", SECRETS) == []


def test_comments_of_a_jpeg_stream_do_not_survive(tmp_path, policy):
    from PIL import Image
    from pydicom.encaps import encapsulate

    d, _ = planted()
    grey = np.full((32, 32), 90, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", comment=NAME.encode())
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit = 7
    d.PixelData = encapsulate([stream.getvalue()])
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = True
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    after, _ = clean(d, policy)
    assert NAME.encode() not in after.PixelData
    assert struct.unpack("B", after.PixelData[:1])[0] == pytest.approx(90, abs=2)
