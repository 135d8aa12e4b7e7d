//! Groups items of the same stream, or of the same slot, that are sent to Redis together. Pure.

/// Returns the items of each stream, in their order; the streams are in the order of their first items.
pub(super) fn by_stream<T>(items: Vec<T>, stream: impl Fn(&T) -> &str) -> Vec<Vec<T>> {
    let is_same = |pair: &[T]| matches!(pair, [one, other] if stream(one) == stream(other));
    if items.windows(2).all(is_same) {
        // Most workers have one stream.
        return if items.is_empty() { Vec::new() } else { vec![items] };
    }
    let mut groups: Vec<Vec<T>> = Vec::new();
    for item in items {
        let found = groups.iter_mut().find(|group| group.first().is_some_and(|first| stream(first) == stream(&item)));
        match found {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_is_one_group_in_its_order() {
        let item = |stream: &'static str, number: u32| (stream, number);
        let numbers = |items: Vec<(&'static str, u32)>| -> Vec<Vec<u32>> {
            let groups = by_stream(items, |(stream, _)| stream);
            groups.into_iter().map(|group| group.into_iter().map(|(_, number)| number).collect()).collect()
        };
        assert_eq!(numbers(Vec::new()), Vec::<Vec<u32>>::new());
        assert_eq!(numbers(vec![item("a", 1), item("a", 2)]), [[1, 2]]);
        let mixed = vec![item("a", 1), item("b", 2), item("a", 3), item("c", 4), item("b", 5)];
        assert_eq!(numbers(mixed), [vec![1, 3], vec![2, 5], vec![4]]);
    }
}
