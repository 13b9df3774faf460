//! SETTINGS, and the windows that they change (RFC 9113, sections 6.5 and 6.9.2).

use super::Expected::{Answer, Gone, Ignored};
use super::hpack::{get, post};
use super::*;

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = list.iter().flat_map(|(id, value)| setting(*id, *value)).collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn then_get(list: &[(u16, u32)]) -> Vec<u8> {
    [settings(list), request(1, &get())].concat()
}

pub const CASES: &[Case] = &[
    ("RFC 9113 §6.5 SETTINGS on a stream", || frame(SETTINGS, 0, 1, &[]), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §6.5 SETTINGS of five bytes", || frame(SETTINGS, 0, 0, &[0; 5]), Gone(&[FRAME_SIZE_ERROR])),
    ("RFC 9113 §6.5 SETTINGS of seven bytes", || frame(SETTINGS, 0, 0, &[0; 7]), Gone(&[FRAME_SIZE_ERROR])),
    (
        "RFC 9113 §6.5 an answer to SETTINGS with a payload",
        || frame(SETTINGS, ACK, 0, &[0; 6]),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.5 an answer to SETTINGS on a stream",
        || frame(SETTINGS, ACK, 1, &[]),
        Gone(&[PROTOCOL_ERROR]),
    ),
    ("RFC 9113 §6.5 empty SETTINGS again", || frame(SETTINGS, 0, 0, &[]), Ignored),
    ("RFC 9113 §6.5.2 SETTINGS_ENABLE_PUSH of 0", || then_get(&[(2, 0)]), Answer(1, 200)),
    ("RFC 9113 §6.5.2 SETTINGS_ENABLE_PUSH of 1", || then_get(&[(2, 1)]), Answer(1, 200)),
    ("RFC 9113 §6.5.2 SETTINGS_ENABLE_PUSH of 2", || settings(&[(2, 2)]), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §6.5.2 SETTINGS_INITIAL_WINDOW_SIZE of 2^31 - 1",
        || then_get(&[(4, 0x7fff_ffff)]),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.5.2 SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
        || settings(&[(4, 0x8000_0000)]),
        Gone(&[FLOW_CONTROL_ERROR]),
    ),
    (
        "RFC 9113 §6.5.2 SETTINGS_MAX_FRAME_SIZE of 2^14 - 1",
        || settings(&[(5, 16_383)]),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.5.2 SETTINGS_MAX_FRAME_SIZE of 2^24",
        || settings(&[(5, 0x100_0000)]),
        Gone(&[PROTOCOL_ERROR]),
    ),
    ("RFC 9113 §6.5.2 SETTINGS_MAX_FRAME_SIZE of 2^24 - 1", || then_get(&[(5, 0xff_ffff)]), Answer(1, 200)),
    ("RFC 9113 §6.5.2 SETTINGS_HEADER_TABLE_SIZE of 0", || then_get(&[(1, 0)]), Answer(1, 200)),
    ("RFC 9113 §6.5.2 SETTINGS_HEADER_TABLE_SIZE of 2^32 - 1", || then_get(&[(1, u32::MAX)]), Answer(1, 200)),
    ("RFC 9113 §6.5.2 SETTINGS_MAX_CONCURRENT_STREAMS of 0", || then_get(&[(3, 0)]), Answer(1, 200)),
    (
        "RFC 9113 §6.5.2 SETTINGS_MAX_HEADER_LIST_SIZE of 2^32 - 1",
        || then_get(&[(6, u32::MAX)]),
        Answer(1, 200),
    ),
    ("RFC 9113 §6.5.2 a setting that nobody knows", || then_get(&[(0xfff, 7)]), Answer(1, 200)),
    (
        "RFC 9113 §6.5.3 the last of equal settings counts",
        || then_get(&[(4, 0), (4, 65_535)]),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.5.3 a bad setting behind a good one",
        || settings(&[(4, 1), (2, 3)]),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.9.2 a window of nothing, opened later",
        || [then_get(&[(4, 0)]), window(1, 10)].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.9.2 a window of nothing, opened by SETTINGS",
        || [then_get(&[(4, 0)]), settings(&[(4, 10)])].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.9.2 a window of one byte, opened byte by byte",
        || [then_get(&[(4, 1)]), window(1, 1)].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.9.2 SETTINGS that push a stream's window beyond 2^31 - 1",
        || [head(1, &post()), window(1, 0x7fff_ffff - 65_535), settings(&[(4, 0x7fff_ffff)])].concat(),
        Gone(&[FLOW_CONTROL_ERROR]),
    ),
];
