//! A request that names another host than its TLS handshake did (RFC 9110, section 15.5.20): what was proven there says
//! nothing about this name, and on an address that API and edge share it may be the edge's.

use actix_web::{
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::StatusCode,
    middleware::Next,
    web,
};

use super::{Ports, error::ApiError};
use crate::gateway::acceptor::Connection;

/// Lets a request pass whose host is the one of its handshake, or that had no name to give there; 421 for others.
///
/// # Errors
/// None of its own.
pub async fn refuse<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if is_misdirected(&request) {
        let words = "This connection was opened for another host name. Open one of its own for this name.";
        let error = ApiError::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", words);
        return Ok(request.error_response(error));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn is_misdirected(request: &ServiceRequest) -> bool {
    let Some(connection) = request.conn_data::<Connection>() else { return false };
    let Some(asked) = &connection.server_name else { return false };
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| {
        // Whether there is exactly one is HTTP's affair.
        request.headers().get("host").and_then(|host| host.to_str().ok())
    });
    let Some(host) = host else { return false };
    let ports = request.app_data::<web::Data<Ports>>();
    let peer = connection.peer.ip().to_canonical();
    // A proxy that the operator trusts asks for what it likes.
    let is_trusted =
        ports.is_some_and(|it| it.settings.trusted_proxies.iter().any(|net| net.contains(&peer)));
    !is_trusted && name_of(host) != asked.trim_end_matches('.')
}

/// The name in a host and port, in the spelling of a handshake.
fn name_of(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for host in ["hub.example", "Hub.Example:7070", "hub.example.", "HUB.EXAMPLE.:", "hub.example:443"] {
            assert_eq!(name_of(host), "hub.example", "{host}");
        }
        assert_eq!(name_of("[::1]"), "[::1]");
        assert_eq!(name_of("[::1]:7070"), "[::1]");
    }
}
