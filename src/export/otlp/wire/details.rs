//! What an answer says besides its status: `google.rpc.Status`, and the pause that it asks for.

use std::time::Duration;

use bytes::Buf;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

/// The most bytes of a message that are kept.
const MESSAGE: usize = 512;

/// The message of an encoded `Status`, else the answer itself if it is text.
pub(super) fn message(answer: &[u8]) -> String {
    // A Status is a number and a text in fields 1 and 2, which is also the shape of a partial success.
    let said = match ExportTracePartialSuccess::decode(answer) {
        Ok(status) if !answer.is_empty() => status.error_message,
        _ => String::from_utf8_lossy(answer).into_owned(),
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    super::super::value::cut(&line, MESSAGE)
}

/// The pause of a `RetryInfo` among a status's details.
pub(super) fn retry_delay(status: &[u8]) -> Option<Duration> {
    fields(status)
        .filter(|(number, _)| *number == 3)
        .filter_map(|(_, value)| value.bytes())
        .find_map(|any| {
            let of_type = |wanted| fields(any).find(|(number, _)| *number == wanted);
            let name = of_type(1)?.1.bytes()?;
            if !name.ends_with(b"google.rpc.RetryInfo") {
                return None;
            }
            let (_, delay) = fields(of_type(2)?.1.bytes()?).find(|(number, _)| *number == 1)?;
            Some(duration(delay.bytes()?))
        })
}

fn duration(encoded: &[u8]) -> Duration {
    let mut length = Duration::ZERO;
    for (number, value) in fields(encoded) {
        length += match (number, value.number()) {
            (1, Some(seconds)) => Duration::from_secs(seconds),
            (2, Some(nanos)) => Duration::from_nanos(nanos),
            _ => Duration::ZERO,
        };
    }
    length
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }
}

/// The fields of an encoded message, as far as it can be read.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let (number, wire) = decode_key(&mut rest).ok()?;
        let field = match wire {
            WireType::Varint => Field::Number(decode_varint(&mut rest).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                Field::Bytes(value)
            }
            WireType::ThirtyTwoBit
            | WireType::SixtyFourBit
            | WireType::StartGroup
            | WireType::EndGroup => return None,
        };
        Some((number, field))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(number: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[number << 3 | 2, length], value].concat()
    }

    #[test]
    fn the_pause_of_a_status_is_found_among_its_details() {
        let delay = [0x08, 3, 0x10, 5];
        let info = tagged(1, &delay);
        let any = [tagged(1, b"type.googleapis.com/google.rpc.RetryInfo"), tagged(2, &info)];
        let status = [vec![0x08, 8], tagged(2, b"slow down"), tagged(3, &any.concat())].concat();
        assert_eq!(retry_delay(&status), Some(Duration::new(3, 5)));
        assert_eq!(message(&status), "slow down");
        assert_eq!(retry_delay(&status[..status.len() - 2]), None);
        assert_eq!(retry_delay(b"not a status"), None);
    }

    #[test]
    fn an_answer_that_is_text_is_its_own_message() {
        assert_eq!(message(b"no such\n  path"), "no such path");
        assert_eq!(message(b""), "");
    }
}
