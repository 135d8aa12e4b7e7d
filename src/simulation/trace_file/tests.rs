//! Tests of valid files, and of the errors of invalid ones.

use super::*;

fn read_text(text: &str) -> Result<Vec<Row>, String> {
    read(text.as_bytes(), "t.csv", "browser").map_err(|error| error.to_string())
}

fn row(arrival_us: u64, service_us: Option<u64>) -> Row {
    Row { arrival_us, service: service_us.map(Duration::from_micros) }
}

#[test]
fn columns_may_be_missing_or_in_another_order() {
    let all = "# recorded\nservice_ms, worker_type, arrival_ms\n12.5,browser,1000\n,browser,2000.25\n7,other,1\n";
    assert_eq!(read_text(all), Ok(vec![row(1_000_000, Some(12_500)), row(2_000_250, None)]));
    assert_eq!(read_text("arrival_ms\r\n5\r\n\r\n6\r\n"), Ok(vec![row(5_000, None), row(6_000, None)]));
}

#[test]
fn what_was_written_is_read() {
    let mut written = Vec::new();
    let mut writer = RowWriter::new(&mut written).unwrap();
    writer.write(1_700_000_000_123, "browser", Some(250.5)).unwrap();
    writer.write(1_700_000_000_124, "browser", None).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let text = String::from_utf8(written).unwrap();
    assert_eq!(text, "arrival_ms,worker_type,service_ms\n1700000000123,browser,250.5\n1700000000124,browser,\n");
    let expected = vec![row(1_700_000_000_123_000, Some(250_500)), row(1_700_000_000_124_000, None)];
    assert_eq!(read_text(&text), Ok(expected));
}

#[test]
fn each_error_has_its_line_and_the_cure() {
    let bad = "arrival_ms,service_ms\n1,2\nsoon,2\n3\n4,-1\n-4,1\n1e300,\n";
    insta::assert_snapshot!(read_text(bad).unwrap_err(), @r#"
    t.csv:3: arrival_ms: expected milliseconds from 0 to 253402300799000, found "soon"
    t.csv:4: 1 fields, and the header has 2; a missing value is an empty field
    t.csv:5: service_ms: expected milliseconds from 0 to 604800000, found "-1"
    t.csv:6: arrival_ms: expected milliseconds from 0 to 253402300799000, found "-4"
    t.csv:7: arrival_ms: expected milliseconds from 0 to 253402300799000, found "1e300"
    "#);
    let many = format!("arrival_ms\n{}", "x\n".repeat(100));
    assert!(read_text(&many).unwrap_err().ends_with(
        "t.csv:11: arrival_ms: expected milliseconds from 0 to 253402300799000, found \"x\"\nand 90 more like these"
    ));
}

#[test]
fn a_file_that_is_none_says_what_it_should_be() {
    let told: Vec<String> = [
        "",
        "1,2\n",
        "arrival_ms,servce_ms\n",
        "service_ms\n1\n",
        "arrival_ms\n",
        "arrival_ms,arrival_ms\n1,1\n",
        "arrival_ms,worker_type\n1,mail\n2,mail\n",
        "arrival_ms\n1\n1700000000000\n",
    ]
    .map(|text| read_text(text).unwrap_err())
    .into();
    insta::assert_snapshot!(told.join("\n"), @r#"
    t.csv: is empty; its first line must be a header such as arrival_ms,worker_type,service_ms
    t.csv:1: has no header; put a first line above it, such as arrival_ms,worker_type,service_ms
    t.csv:1: unknown column "servce_ms"; is `service_ms` meant? There are: arrival_ms,worker_type,service_ms
    t.csv:1: no column `arrival_ms`, the time at which each job came, in milliseconds; add it
    t.csv: holds no jobs; record some, or name a pattern such as `steady`
    t.csv:1: column `arrival_ms` is there twice; remove one
    t.csv: holds no jobs of `browser`; name another type with --type, there are: mail (2)
    t.csv: goes over 19675 days, and 400 are the most; arrival_ms must be milliseconds, counted from the same moment in each line
    "#);
    assert!(read(&b"arrival_ms\n1\n\xff\n"[..], "t.csv", "x").unwrap_err().to_string().contains("UTF-8"));
}
