//! The frame: length, JSON. Pure functions, so that the fuzzer and both kinds of channel share them.

use serde::{Serialize, de::DeserializeOwned};

use crate::ChannelError;

/// Largest payload of a frame in bytes: a snapshot of a thousand services fits many times over.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Most descriptors that one frame may carry.
pub const MAX_FDS: usize = 64;
pub(crate) const HEADER: usize = 4;

/// Encodes `message` as a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, ChannelError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    if length > MAX_FRAME {
        return Err(ChannelError::TooLarge(length));
    }
    // MAX_FRAME fits u32.
    frame[..HEADER].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Length of the frame that starts `buffer`, header included; `None` while the header is incomplete.
pub(crate) fn frame_length(buffer: &[u8]) -> Result<Option<usize>, ChannelError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_le_bytes(*header) as usize;
    if length > MAX_FRAME {
        return Err(ChannelError::TooLarge(length));
    }
    Ok(Some(HEADER + length))
}

/// Decodes a payload (a frame without its header).
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ChannelError> {
    Ok(serde_json::from_slice(payload)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(texts in proptest::collection::vec(".*", 0..8)) {
            let frame = encode(&texts).unwrap();
            prop_assert_eq!(frame_length(&frame).unwrap(), Some(frame.len()));
            prop_assert_eq!(decode::<Vec<String>>(&frame[HEADER..]).unwrap(), texts);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_claim_more_than_the_bound(bytes: Vec<u8>) {
            if let Ok(Some(length)) = frame_length(&bytes) {
                prop_assert!(length <= HEADER + MAX_FRAME);
            }
            let _ = decode::<Vec<String>>(&bytes);
        }
    }
}
