//! `/openapi.json`: what the API says of itself.

use crate::support::{request, shared_server};

const PATH: &str = "/openapi.json";

#[test]
fn the_document_is_there_for_everybody() {
    let server = shared_server();
    let reply = server.exchange(request("GET", PATH, &[], b""));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let document = reply.json();
    assert_eq!(document["info"]["title"], "Chinwag");
    let send = &document["paths"]["/im.chat/send"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(send["schema"]["$ref"], "#/components/schemas/send_req");
    assert_eq!(document["components"]["schemas"]["send_req"]["properties"]["msg"]["type"], "string");
    assert!(
        server.metric(r#"chinwag_requests_total{verb="openapi",code="0"}"#).is_some_and(|count| count >= 1.0)
    );
}

#[test]
fn it_is_read_and_nothing_else() {
    let server = shared_server();
    let refused = server.exchange(request("POST", PATH, &[], b""));
    refused.assert_error(405, 10001);
    assert_eq!(refused.header("allow"), Some("GET"));
    server.exchange(request("GET", PATH, &[], b"{}")).assert_error(400, 10001);
    server.exchange(request("GET", "/openapi.json/", &[], b"")).assert_error(404, 10001);
}
