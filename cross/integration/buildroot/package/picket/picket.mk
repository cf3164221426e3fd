################################################################################
#
# picket
#
################################################################################

PICKET_VERSION = @RELEASE@
PICKET_SITE = $(call qstrip,$(BR2_PACKAGE_PICKET_SITE))
PICKET_LICENSE = Apache-2.0 (picket), MIT (ONNX Runtime), and what THIRD-PARTY lists
PICKET_LICENSE_FILES = LICENSE THIRD-PARTY

ifeq ($(BR2_x86_64),y)
PICKET_TARGET = amd64
else ifeq ($(BR2_aarch64),y)
PICKET_TARGET = arm64
else ifeq ($(BR2_arm),y)
PICKET_TARGET = armv7
else ifeq ($(BR2_RISCV_64),y)
PICKET_TARGET = riscv64
endif

# With musl and uClibc the C library comes with the program; for armv7 and
# riscv64 it always does.
ifneq ($(BR2_TOOLCHAIN_USES_GLIBC),y)
ifneq ($(filter $(PICKET_TARGET),amd64 arm64),)
PICKET_KIND = -selfcontained
endif
endif
PICKET_SOURCE = picket-$(PICKET_VERSION)-linux-$(PICKET_TARGET)$(PICKET_KIND).tar.gz

# libonnxruntime.so.sha256 stays out of the image: Buildroot strips libraries
# when it finalizes an image, and picket refuses one whose hash differs.
define PICKET_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/picket $(TARGET_DIR)/usr/bin/picket
	mkdir -p $(TARGET_DIR)/usr/lib/picket
	if [ -d $(@D)/lib ]; then \
		cp -R $(@D)/lib/. $(TARGET_DIR)/usr/lib/picket/; \
		rm -f $(TARGET_DIR)/usr/lib/picket/libonnxruntime.so.sha256; \
	else \
		$(INSTALL) -m 0644 $(@D)/libonnxruntime.so $(TARGET_DIR)/usr/lib/picket/; \
	fi
	$(INSTALL) -D -m 0644 $(or $(call qstrip,$(BR2_PACKAGE_PICKET_CONFIG)),$(@D)/picket.toml) \
		$(TARGET_DIR)/etc/picket/picket.toml
endef

define PICKET_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(PICKET_PKGDIR)/S80picket \
		$(TARGET_DIR)/etc/init.d/S80picket
endef

define PICKET_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/picket.service \
		$(TARGET_DIR)/usr/lib/systemd/system/picket.service
endef

define PICKET_USERS
	picket -1 picket -1 * /var/lib/picket - - Picket
endef

define PICKET_PERMISSIONS
	/var/lib/picket d 700 picket picket - - - - -
endef

$(eval $(generic-package))
