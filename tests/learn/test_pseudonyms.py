"""A recording tells nobody whose plant it is, however SEMS puts it."""

import base64
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.learn import write_recording
from gateway.learn import infer
from gateway.learn.markdown import markdown
from gateway.learn.pseudonyms import Pseudonyms
from gateway.sems.catalogue import load
from tests.learn.kit import NOON, answer

CATALOGUE = load("open_api")
SERIAL, OTHER, PLANT = "9010KETU218W0001", "9020KDTU219W0001", "b1d5c3f0-0000-4111-8222-000000000001"
LEAKS = [
    SERIAL, SERIAL.lower(), OTHER, PLANT, "Müller", "Muster", "80331", "48.137154", "11.576124", "installer@firm",
    "+49 89 1234567", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "192.168.178.44", "AA:BB:CC:DD:EE:FF", "Hauptstr",
    "owner_account_7", "491511234567", "8944500310184312345", "demo-password",
]  # fmt: skip
HOSTILE = [
    {
        "plant_id": PLANT, "plant_name": "Familie Müller", "owner": {"name": "Hans Muster", "phone": "+49 89 1234567"},
        "address": "Hauptstr. 1", "zip": 80331, "postcode": "80331", "longitude": 11.576124, "lat": "48.137154",
        "position": "48.137154, 11.576124", "gps": [48.137154, 11.576124], "email": "installer@firm.example",
    },
    {
        "sn": SERIAL, "name": "Dach Müller", "fault_message": f"{SERIAL} of Familie Müller, see installer@firm.example",
        "remark": f"sn={SERIAL.lower()}; token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "data": {SERIAL: {"pac": 1}},
        "relates_to": [OTHER, {"parent": f"x{SERIAL}x"}], "ip": "192.168.178.44",
        "log": "at 192.168.178.44 via AA:BB:CC:DD:EE:FF",
        "json": '{"sn": "' + SERIAL + '", "userName": "Hans Muster"}', "mobile": 491511234567,
        "iccid": "8944500310184312345",
        "desc": "call +49 89 1234567", "link": f"https://firm.example/plants/{PLANT}?u=owner_account_7",
        "where": "48.137154,11.576124", "pac": 5234.5, "eday": "12.3kWh", "model_type": "GW10K-ET", "status": 1,
    },
]  # fmt: skip


def hostile():
    return [
        answer("GetInverterBySN", data, turn, invertersn=SERIAL, plant=PLANT)
        for turn, data in enumerate(
            [*HOSTILE, "plain text of " + SERIAL, {"list": [{"sn": OTHER}, {"sn": 12345678901}]}]
        )
    ] + [answer("Unheard", {"deep": {"er": [[[{"note": "for Hans Muster, owner_account_7"}]]]}})]


def test_a_recording_of_hostile_answers_leaks_nothing(tmp_path):
    write_recording(tmp_path / "r", CATALOGUE, hostile(), ("owner_account_7", "demo-password"))
    text = (tmp_path / "r").read_text()
    assert not [leak for leak in LEAKS if leak.lower() in text.lower()]
    assert "12345678901" not in text


def encoded(text, kind):
    made = (base64.urlsafe_b64encode if kind == "url" else base64.b64encode)(text.encode()).decode()
    return made.rstrip("=") if kind == "bare" else made


@pytest.mark.parametrize("kind", ["std", "url", "bare"])
def test_base64_of_what_is_replaced_is_base64_of_what_stands_for_it(tmp_path, kind):
    # `?>` and `~~` have characters of their own in each alphabet.
    inner = [SERIAL, f"{SERIAL}?>", f"~~{SERIAL}", f"x,{OTHER}", '{"sn": "' + SERIAL + '"}', "Familie Müller?>"]
    said = [encoded(text, kind) for text in inner]
    twice = encoded(said[0], kind)
    data = {
        "sn": SERIAL, "plant_name": "Familie Müller", "link_sn": said[0], "token": said[0], "qr": said,
        "text": f"dongle={said[1]}; {said[0]},{said[4]}", "twice": twice, said[0]: 1, "other": encoded(OTHER, kind),
        "words": ["Inverter", "GW10K-ET", "SUCCESS", "success-rate", "Tm90aGluZw==", "2026-06-21", "AAAAAAAA"],
    }  # fmt: skip
    write_recording(tmp_path / "r", CATALOGUE, [answer("GetInverterBySN", data, 0, invertersn=SERIAL)])
    text = (tmp_path / "r").read_text()
    assert not [leak for leak in (SERIAL, OTHER, "Müller", twice, *said) if leak.rstrip("=") in text]
    kept = msgspec.json.decode(text.splitlines()[1])["body"]["data"]
    stand_in = kept["sn"]
    assert kept["link_sn"] == encoded(stand_in, kind)
    assert kept["qr"][:3] == [encoded(t, kind) for t in (stand_in, f"{stand_in}?>", f"~~{stand_in}")]
    assert kept["twice"] == encoded(encoded(stand_in, kind), kind)
    assert kept["words"] == data["words"], "what is base64 of nothing that is replaced stays"


BELOW = {
    "user": {"first": "Gunnar", "last": "Rosenquist", "more": [{"nick": "Gunnarsson"}]}, "createBy": "bsolberg",
    "updateBy": {"x": "Updater Joe"}, "coord": {"x": 20.6512, "y": 67.1733}, "adr1": "Storgatan", "houseNo": "12Bx",
    "dongle": "WLA9087Z1234", "collector": "COLL-99812", "checkcode": "048291",
    "logger": "qqlogger7",
    "hint": "ABX77Q1299",
    "customer": {"deep": {"er": "Rosenlund"}}, "WLB9087Z1234": {"k": 1}, "9010ketu218w7788": 2,
    "sn": "9010KETU218W7788",
    "loc": "Malmberget", "also": "at Storgatan, ABX77Q1299",
}  # fmt: skip


def test_all_below_a_personal_key_is_replaced_and_what_looks_like_an_identifier(tmp_path):
    kept = {
        "time": "20260621T120000Z",
        "e": "12345678KWH",
        "model_type": "GW50KSMT10",
        "last_refresh_time": "2026-06-21",
    }
    write_recording(tmp_path / "r", CATALOGUE, [answer("GetPlantDetail", BELOW | kept)])
    text = (tmp_path / "r").read_text()
    leaks = ["Gunnar", "Rosen", "bsolberg", "Updater", "20.65", "67.17", "Storgatan", "12Bx", "9087Z1234", "99812",
             "048291",
             "qqlogger7", "ABX77Q1299", "9010KETU218W7788", "Malmberget"]  # fmt: skip
    assert not [leak for leak in leaks if leak.lower() in text.lower()]
    assert all(value in text for value in kept.values())


def test_a_report_has_no_serial_that_is_a_field():
    report = infer(CATALOGUE, [answer("GetInverterBySN", {"pac": 1, SERIAL: {"k": 1}}, invertersn=SERIAL)])
    assert SERIAL not in markdown(report)


def test_what_was_measured_stays(tmp_path):
    write_recording(tmp_path / "r", CATALOGUE, hostile())
    text = (tmp_path / "r").read_text()
    assert all(kept in text for kept in ('"pac":5234.5', '"12.3kWh"', '"GW10K-ET"', '"status":1', '"success"'))


def test_the_same_becomes_the_same_everywhere():
    one, two, *_ = Pseudonyms(CATALOGUE, b"salt").answers(hostile()[1:3])
    new = one.body["data"]["sn"]
    assert new != SERIAL
    assert re.fullmatch(r"\d{4}KETU\d{3}W\d{4}", new), "its shape and its model's letters stay"
    assert one.args["invertersn"] == two.args["invertersn"] == new
    assert new in one.body["data"]["fault_message"]
    assert new in one.body["data"]["data"]
    assert two.body["data"] == f"plain text of {new}"


def test_another_recording_has_others():
    first, second = (Pseudonyms(CATALOGUE, salt).answers(hostile())[1] for salt in (b"one", b"two"))
    assert first.body["data"]["sn"] != second.body["data"]["sn"]


SERIALS = st.from_regex(r"[1-9]\d{3}(KETU|KDTU|LXFU|GM3U)2\d{2}W\d{4}", fullmatch=True)


@given(
    SERIALS,
    st.lists(st.sampled_from(["{}", "sn {} here", "{}{}", "x{}", '["{}"]', "a,{}"]), min_size=1),
    st.text(max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_no_serial_stays_wherever_it_stands(serial, texts, key):
    body = {key: [text.replace("{}", serial) for text in texts], serial: serial, "n": {"sn": serial}}
    [changed] = Pseudonyms(CATALOGUE, b"salt").answers([answer("GetInverterList", body, Plantid="1")])
    assert serial not in msgspec.json.encode(changed).decode()


@pytest.mark.parametrize("deep", [63, 200])
def test_depth_is_bounded_and_leaks_nothing(deep):
    data = SERIAL
    for _ in range(deep):
        data = [data]
    [changed] = Pseudonyms(CATALOGUE, b"salt").answers([answer("GetInverterList", data)])
    assert SERIAL not in msgspec.json.encode(changed).decode()
    assert changed.time >= NOON
