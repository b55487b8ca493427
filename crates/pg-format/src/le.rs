//! Little-endian fields of a byte string; `None` where it is too short.

pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u8(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub(crate) fn u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

pub(crate) fn u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub(crate) fn i32(bytes: &[u8], offset: usize) -> Option<i32> {
    array(bytes, offset).map(i32::from_le_bytes)
}

pub(crate) fn u64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

pub(crate) fn i64(bytes: &[u8], offset: usize) -> Option<i64> {
    array(bytes, offset).map(i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn too_short_is_none() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(super::u64(&bytes, 0), Some(0x0807_0605_0403_0201));
        assert_eq!(super::u16(&bytes, 6), Some(0x0807));
        assert_eq!(super::u16(&bytes, 7), None);
        assert_eq!(super::u32(&bytes, usize::MAX), None);
    }
}
