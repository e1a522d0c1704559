//! Methods of the class connection, and the opening and closing of channels.

use super::{
    Shard,
    control_message::{ControlRequest, Operation},
    shard_message::Asker,
};
use crate::{
    connection::{Awaiting, Capabilities, ChannelSlot, Connection, Pause, Phase, Then, handshake},
    definitions::{Name, User},
    limits::{CHANNELS_MAX, CLOSE_MILLIS_MAX, FRAME_OCTETS_MAX, FRAME_OCTETS_MIN, HEARTBEAT_SECONDS_DEFAULT},
    protocol::{
        exception::{ConnectionException, Exception},
        field_table::{TableRef, ValueRef},
        method::{Method, channel, connection},
        reply_code::ReplyCode,
    },
};

/// The user that may log in from loopback addresses only.
const LOOPBACK_USER: &str = "guest";

impl Shard {
    /// The protocol header has arrived.
    pub(super) fn start_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        handshake::put_start(connection.output.octets_mut());
        connection.phase = Phase::Start;
        self.connections.mark_dirty(slot);
    }

    /// A method frame on channel 0.
    pub(super) fn handle_connection_frame(&mut self, slot: u32, payload: &[u8]) {
        let method = match Method::decode(payload) {
            Ok(method) => method,
            Err(fault) => {
                let ids = fault.ids();
                self.fail_connection(slot, &ConnectionException::from(fault), ids);
                return;
            }
        };
        let ids = method.ids();
        if let Err(exception) = self.handle_connection_method(slot, &method) {
            self.fail_connection(slot, &exception, ids);
        }
    }

    fn handle_connection_method(&mut self, slot: u32, method: &Method<'_>) -> Result<(), ConnectionException> {
        let phase = self.connections.get(slot).map_or(Phase::Closed, |connection| connection.phase);
        match (phase, method) {
            (Phase::Start, Method::ConnectionStartOk(start_ok)) => self.handle_start_ok(slot, start_ok),
            (Phase::Tune, Method::ConnectionTuneOk(tune_ok)) => self.handle_tune_ok(slot, tune_ok),
            (Phase::Open, Method::ConnectionOpen(open)) => self.handle_open(slot, open),
            (Phase::Running, Method::ConnectionUpdateSecret(_)) => {
                self.send(slot, 0, &Method::ConnectionUpdateSecretOk(connection::UpdateSecretOk {}));
                Ok(())
            }
            (Phase::Closing, Method::ConnectionCloseOk(_)) => {
                self.end_connection(slot);
                Ok(())
            }
            (_, Method::ConnectionClose(_)) => {
                self.release_connection(slot);
                self.send(slot, 0, &Method::ConnectionCloseOk(connection::CloseOk {}));
                self.end_connection(slot);
                Ok(())
            }
            (Phase::Closing, _) => Ok(()),
            (_, method) => {
                let text = format!("{} is not expected now", method.name());
                Err(ConnectionException::new(ReplyCode::CommandInvalid, text))
            }
        }
    }

    fn handle_start_ok(&mut self, slot: u32, start_ok: &connection::StartOk<'_>) -> Result<(), ConnectionException> {
        let connection = self.connections.get_mut(slot).expect("the connection that a method came on is there");
        connection.capabilities = capabilities_of(&start_ok.client_properties);
        let (mechanism, credentials) = match start_ok.mechanism {
            b"PLAIN" => ("PLAIN", handshake::plain(start_ok.response)),
            b"AMQPLAIN" => ("AMQPLAIN", handshake::amqplain(start_ok.response)),
            other => {
                let text = format!("unknown authentication mechanism '{}'", String::from_utf8_lossy(other));
                return Err(ConnectionException::new(ReplyCode::CommandInvalid, text));
            }
        };
        let is_far_guest = |user: &str| user == LOOPBACK_USER && !connection.from_loopback;
        let Some(credentials) = credentials.filter(|credentials| !is_far_guest(&credentials.user)) else {
            self.refuse_login(slot, "(guest from elsewhere, or none that could be read)", mechanism);
            return Ok(());
        };
        let user = Name::from(credentials.user);
        connection.phase = Phase::Authenticating;
        connection.pause = Some(Pause::Answer);
        connection.awaiting = Some(Awaiting {
            channel: 0,
            method: connection::StartOk::IDS,
            no_wait: false,
            then: Then::Authenticate { user: user.clone(), mechanism },
        });
        let from = Some(Asker { connection: connection.id, channel: 0 });
        let operation = Operation::Authenticate { user, password: credentials.password.into() };
        self.control_requests.push_back(ControlRequest { from, operation });
        Ok(())
    }

    /// The credentials were verified.
    pub(super) fn finish_login(&mut self, slot: u32, user: Name, mechanism: &'static str, is_right: bool) {
        if !is_right {
            self.refuse_login(slot, &user, mechanism);
            return;
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.user = user;
        connection.phase = Phase::Tune;
        let frame_max = u32::try_from(FRAME_OCTETS_MAX).expect("frame-max is four octets");
        let tune = connection::Tune { channel_max: CHANNELS_MAX, frame_max, heartbeat: HEARTBEAT_SECONDS_DEFAULT };
        self.send(slot, 0, &Method::ConnectionTune(tune));
    }

    fn refuse_login(&mut self, slot: u32, user: &str, mechanism: &str) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        tracing::warn!("connection {slot}: the login of user {user} was refused (mechanism {mechanism})");
        if connection.capabilities.authentication_failure_close {
            let text = format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            );
            let exception = ConnectionException::new(ReplyCode::AccessRefused, text);
            self.fail_connection(slot, &exception, (0, 0));
        } else {
            self.end_connection(slot);
        }
    }

    fn handle_tune_ok(&mut self, slot: u32, tune_ok: &connection::TuneOk) -> Result<(), ConnectionException> {
        let frame_max = usize::try_from(tune_ok.frame_max).expect("frame-max is four octets");
        check_negotiated("frame_max", frame_max, FRAME_OCTETS_MIN, FRAME_OCTETS_MAX)?;
        check_negotiated("channel_max", usize::from(tune_ok.channel_max), 1, usize::from(CHANNELS_MAX))?;
        let connection = self.connections.get_mut(slot).expect("the connection that a method came on is there");
        connection.frame_octets_max = frame_max;
        connection.channel_max = tune_ok.channel_max;
        connection.heartbeat_millis = u64::from(tune_ok.heartbeat) * 1000;
        connection.phase = Phase::Open;
        Ok(())
    }

    fn handle_open(&mut self, slot: u32, open: &connection::Open<'_>) -> Result<(), ConnectionException> {
        let connection = self.connections.get_mut(slot).expect("the connection that a method came on is there");
        let name = String::from_utf8_lossy(open.virtual_host);
        let not_allowed = |text: String| ConnectionException::new(ReplyCode::NotAllowed, text);
        let Some(vhost) = self.definitions.vhost(open.virtual_host) else {
            return Err(not_allowed(format!("vhost {name} not found")));
        };
        if !self.definitions.has_vhost_access(&connection.user, &vhost.name) {
            let user: &User = match self.definitions.user(&connection.user) {
                Some(user) => user,
                None => return Err(not_allowed(format!("user '{}' is gone", connection.user))),
            };
            return Err(not_allowed(format!("access to vhost '{name}' refused for user '{}'", user.name)));
        }
        connection.vhost = vhost.name.clone();
        connection.phase = Phase::Running;
        connection.deadline = None;
        self.send(slot, 0, &Method::ConnectionOpenOk(connection::OpenOk {}));
        if self.is_closing {
            self.close_for_shutdown(slot);
        }
        Ok(())
    }

    pub(super) fn open_channel(&mut self, slot: u32, number: u16) {
        let connection = self.connections.get_mut(slot).expect("the connection that a method came on is there");
        if number > connection.channel_max {
            let text = format!(
                "number of channels opened ({number}) has reached the negotiated channel_max ({})",
                connection.channel_max
            );
            self.fail_connection(slot, &ConnectionException::new(ReplyCode::NotAllowed, text), channel::Open::IDS);
            return;
        }
        *connection.channel_slot(number) = ChannelSlot::Open(Box::default());
        self.send(slot, number, &Method::ChannelOpenOk(channel::OpenOk {}));
    }

    /// `channel.close` of the client.
    pub(super) fn close_channel(&mut self, slot: u32, number: u16) {
        self.release_channel(slot, number);
        if let Some(connection) = self.connections.get_mut(slot) {
            *connection.channel_slot(number) = ChannelSlot::Closed;
        }
        self.send(slot, number, &Method::ChannelCloseOk(channel::CloseOk {}));
    }

    /// Methods of the class channel on a channel that is open.
    pub(super) fn handle_channel_class(
        &mut self,
        slot: u32,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        match method {
            Method::ChannelOpen(_) => {
                Err(ConnectionException::new(ReplyCode::ChannelError, "second 'channel.open' seen").into())
            }
            Method::ChannelClose(_) => {
                self.close_channel(slot, number);
                Ok(())
            }
            Method::ChannelFlow(channel::Flow { active: true }) => {
                self.send(slot, number, &Method::ChannelFlowOk(channel::FlowOk { active: true }));
                Ok(())
            }
            Method::ChannelFlow(_) => Err(ConnectionException::new(ReplyCode::NotImplemented, "active=false").into()),
            _ => Ok(()),
        }
    }

    /// Appends a method to a connection's output.
    pub(super) fn send(&mut self, slot: u32, channel: u16, method: &Method<'_>) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.send(channel, method);
            self.connections.mark_dirty(slot);
        }
    }

    /// The connection is over once its output is written.
    pub(super) fn end_connection(&mut self, slot: u32) {
        let deadline = self.now + CLOSE_MILLIS_MAX;
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.phase = Phase::Closed;
            connection.deadline = Some(deadline);
            self.connections.mark_dirty(slot);
        }
    }
}

fn capabilities_of(client_properties: &TableRef<'_>) -> Capabilities {
    let Some(ValueRef::Table(table)) = client_properties.get(b"capabilities") else { return Capabilities::default() };
    let has = |name: &[u8]| matches!(table.get(name), Some(ValueRef::Bool(true)));
    Capabilities {
        authentication_failure_close: has(b"authentication_failure_close"),
        connection_blocked: has(b"connection.blocked"),
        consumer_cancel_notify: has(b"consumer_cancel_notify"),
    }
}

/// RabbitMQ's check: 0 means "no limit", which is more than the broker allows.
fn check_negotiated(field: &str, value: usize, least: usize, most: usize) -> Result<(), ConnectionException> {
    let (what, bound, limit) = match value {
        0 => ("higher", "maximum", most),
        _ if value > most => ("higher", "maximum", most),
        _ if value < least => ("lower", "minimum", least),
        _ => return Ok(()),
    };
    let detail = if value == 0 && field == "channel_max" { " (no limit)" } else { "" };
    let text = format!("negotiated {field} = {value}{detail} is {what} than the {bound} allowed value ({limit})");
    Err(ConnectionException::new(ReplyCode::NotAllowed, text))
}

impl Connection {
    /// Who asks, on this channel.
    pub(super) fn asker(&self, channel: u16) -> Asker {
        Asker { connection: self.id, channel }
    }
}
