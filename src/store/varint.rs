//! Integers in records: LEB128, seven bits a byte, the lowest first.

/// Appends an integer.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes an integer off the front; `None` if there is none, or one of more than 64 bits.
pub fn take(record: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *record.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        number |= bits << shift;
        if byte < 0x80 {
            return (number >> shift == bits).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_integer_is_read_as_it_was_written(number: u64, rest: Vec<u8>) {
            let mut record = Vec::new();
            put(&mut record, number);
            record.extend_from_slice(&rest);
            let mut record = &record[..];
            prop_assert_eq!(take(&mut record), Some(number));
            prop_assert_eq!(record, rest);
        }
    }

    #[test]
    fn what_is_cut_or_too_large_is_none() {
        let too_large = [[0xff; 9].as_slice(), &[2]].concat();
        for bytes in [&[][..], &[0x80], &[0xff; 10], &too_large] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:x?}");
        }
    }
}
